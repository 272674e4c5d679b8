"""The scripts for people who have only the checkout."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd="/",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lib(script: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run bash with the shared functions, as the scripts do."""
    return run("bash", "-euc", f'source "{root}/scripts/lib.sh"\n{script}', **environment)


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "lib.sh", tmp_path / "scripts")
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart", "test", "check", "lock"])
def test_a_script_teaches_its_use_from_any_folder(name: str) -> None:
    told = run(str(ROOT / "scripts" / name), "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"Usage: scripts/{name}")
    assert f"Examples:\n  scripts/{name}" in told.stdout


@pytest.mark.parametrize("name", ["quickstart", "test", "check", "lock"])
def test_a_mistyped_argument_is_refused_before_anything_is_done(name: str) -> None:
    told = run(str(ROOT / "scripts" / name), "--nonsense")
    assert told.returncode == 2
    assert told.stderr


def test_the_plan_of_quickstart_only_tells() -> None:
    told = run(str(ROOT / "scripts" / "quickstart"), "--plan")
    assert told.returncode == 0, told.stderr
    assert "This will\n" in told.stdout
    assert "launch the cluster" in told.stdout


def test_the_python_that_is_named_comes_first(tmp_path: Path) -> None:
    chosen = program(tmp_path / "mine", "exit 0")
    assert lib("find_python", EPIC_PYTHON=str(chosen)).stdout.strip() == str(chosen)


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "exit 1")
    told = lib("find_python", EPIC_PYTHON=str(old))
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() != str(old)


def test_without_a_fitting_python_the_error_says_what_to_do() -> None:
    told = lib("python_fits() { return 1; }\nfind_python")
    assert told.returncode == 1
    assert told.stderr.startswith("Error: No Python from 3.11 to 3.13")
    assert "Hint:  Install one" in told.stderr


def test_an_environment_is_ready_for_the_lock_and_the_folder_it_was_made_for(
    checkout: Path,
) -> None:
    (checkout / "some.lock").write_text("package==1\n")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    program(checkout / ".venv" / "bin" / "python", "exit 0")
    ready = "venv_is_ready some.lock"
    assert lib(ready, checkout).returncode != 0
    assert lib(f'lock_stamp some.lock >"$STAMP"\n{ready}', checkout).returncode == 0
    moved = checkout.parent / f"{checkout.name}-moved"
    shutil.copytree(checkout, moved)
    assert lib(ready, moved).returncode != 0
    (checkout / "some.lock").write_text("package==2\n")
    assert lib(ready, checkout).returncode != 0


def test_a_quiet_command_speaks_when_it_fails() -> None:
    told = lib("quietly sh -c 'echo fine'\nquietly sh -c 'echo broken; exit 3' || echo $?")
    assert told.stdout == "3\n"
    assert "broken" in told.stderr
    assert "fine" not in told.stderr
    assert "exit code 3" in told.stderr


def test_an_engine_that_is_named_and_not_there_is_not_replaced_by_another() -> None:
    told = lib("ensure_docker", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert told.returncode == 1
    assert "DOCKER_HOST=unix:///nowhere/docker.sock" in told.stderr
    assert "unset DOCKER_HOST" in told.stderr


@pytest.mark.parametrize(
    ("code", "exit_code", "summary"),
    [
        (0, 0, "suites: 1 passed, 0 failed"),
        (1, 1, "suites: 0 passed, 1 failed"),
        (5, 1, "suites: 0 passed, 1 failed"),  # pytest's code for a run without any test
    ],
)
def test_a_suite_that_fails_or_has_no_test_fails_the_run(
    checkout: Path, code: int, exit_code: int, summary: str
) -> None:
    shutil.copy(ROOT / "scripts" / "test", checkout / "scripts")
    with (checkout / "scripts" / "lib.sh").open("a") as functions:
        functions.write("ensure_venv() { :; }\nensure_collections() { :; }\n")
        functions.write("compile_package() { :; }\n")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    program(checkout / ".venv" / "bin" / "python", f"exit {code}")
    told = run(str(checkout / "scripts" / "test"), "unit")
    assert told.returncode == exit_code, told.stderr
    assert summary in told.stdout.splitlines()


# -- who called, and the browser of the tests ---------------------------------------------------


@pytest.mark.parametrize(
    ("user", "uid", "home", "told"),
    [
        ("", "0", "/root", ""),
        ("root", "0", "/root", ""),
        ("ada", "1000", "/home/ada", ""),
        ("ada", "0", "/root", "  sudo .venv/bin/epic-run list"),
        ("ada", "0", "/home/ada",
         "  sudo EPIC_HOME=/home/ada/.local/share/epic-runner .venv/bin/epic-run list"),
    ],
)  # fmt: skip
def test_who_had_sudo_run_quickstart_is_told_how_to_go_on(
    user: str, uid: str, home: str, told: str
) -> None:
    text = (ROOT / "scripts" / "quickstart").read_text()
    function = text[text.index("print_owner() {") :].partition("\n}\n")[0] + "\n}"
    shown = lib(
        f"id() {{ echo {uid}; }}\n{function}\nprint_owner",
        SUDO_USER=user, HOME=home, EPIC_HOME="", XDG_DATA_HOME="",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "".join(shown.stdout.splitlines()[-1:]) == told
    assert ("ada goes on with:" in shown.stdout) is bool(told)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with nothing but what the functions themselves need, and no package of a browser."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("bash", "sh", "cat", "dirname", "id", "mktemp", "rm", "timeout"):
        (path / name).symlink_to(str(shutil.which(name)))
    program(path / "apt-get", "exit 0")
    program(path / "apt-cache", "exit 0")
    return path


def browser_ensured(machine: Path) -> str:
    script = f"PATH={machine}\napt_install() {{ echo installs $*; }}\nensure_browser"
    shown = lib(script)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip()


def test_a_browser_that_is_there_is_used(machine: Path) -> None:
    program(machine / "google-chrome", "echo Google Chrome 130")
    assert browser_ensured(machine) == ""


def test_a_browser_is_installed_where_there_is_a_package_of_it(machine: Path) -> None:
    program(machine / "apt-cache", "echo chromium 130 main")
    # Ubuntu's chromium-browser is only a word on a snap.
    program(machine / "chromium-browser", "echo requires the snap; exit 1")
    assert browser_ensured(machine) == "installs chromium"


def test_without_a_package_of_a_browser_the_other_tests_go_on(machine: Path) -> None:
    assert browser_ensured(machine) == (
        "No Chromium is here, and no package of it: the tests that open pages in it will fail."
    )


def test_a_test_without_its_browser_fails_and_says_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "acceptance"))
    browser = importlib.import_module("browser")
    program(machine / "chromium-browser", "echo requires the snap; exit 1")
    monkeypatch.setenv("PATH", str(machine))
    with pytest.raises(AssertionError, match="There is no browser for this test; install one of"):
        browser.program()
    there = program(machine / "google-chrome", "echo Google Chrome 130")
    assert browser.program() == str(there)
