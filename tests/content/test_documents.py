"""Documents tell of what there is, and of nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import epic_runner

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def heading_anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "name",
    ["README.md", "CHANGELOG.md", "LICENSE", "docs/architecture.md", "docs/benchmarks.md"],
)
def test_a_document_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in heading_anchors(file.read_text(encoding="utf-8")), target


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[?([^\]\s]+)", text, re.MULTILINE)
    assert headings
    assert headings[0] in {"Unreleased", epic_runner.__version__}


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "scripts/quickstart" in text
    assert "scripts/test" in text


def test_every_program_of_scripts_can_be_run() -> None:
    programs = [
        path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix == ""
    ]
    assert [path.name for path in programs if not path.stat().st_mode & 0o111] == []


def test_no_file_has_a_byte_order_mark_or_carriage_returns() -> None:
    bad = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in {".py", ".yml", ".md", ".j2", ".toml", ".cfg", ""}
        and (b"\r\n" in path.read_bytes() or path.read_bytes().startswith(b"\xef\xbb\xbf"))
    ]
    assert bad == []
