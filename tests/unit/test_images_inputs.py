"""What goes into an image: the files, the certificates, the hash, the build context."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from epic_runner.errors import InputError
from epic_runner.images import inputs
from epic_runner.images.inputs import ContextFile
from epic_runner.spec.models import App

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def app(**changes: object) -> App:
    data = {
        "name": "tool",
        "version": "1.2",
        "revision": 1,
        "label": "Tool",
        "summary": "A tool.",
        "image": "epic/tool",
    }
    return App.model_validate(data | changes)


def folder(tmp_path: Path) -> Path:
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text("ARG PARENT_IMAGE\nFROM ${PARENT_IMAGE}\n")
    (tmp_path / "rootfs/bin/run").write_text("#!/bin/sh\n")
    (tmp_path / "rootfs/bin/run").chmod(0o755)
    return tmp_path


def test_files_are_sorted_and_keep_only_the_executable_bit(tmp_path: Path) -> None:
    files = inputs.folder_files(folder(tmp_path))
    assert [(file.path, file.executable) for file in files] == [
        ("Dockerfile", False),
        ("rootfs/bin/run", True),
    ]


@pytest.mark.parametrize(
    "name", ["app.yml", "requirements.in", "notes.md", "x.pyc", ".swp", "__pycache__/a.py"]
)
def test_files_that_do_not_reach_the_image_are_ignored(tmp_path: Path, name: str) -> None:
    before = inputs.folder_files(folder(tmp_path))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    assert inputs.folder_files(tmp_path) == before


def test_links_are_kept_as_links(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("/opt/there")
    (file,) = inputs.folder_files(tmp_path)
    assert file == ContextFile("here", b"/opt/there", link=True)
    with tarfile.open(fileobj=inputs.context([file])) as archive:
        assert archive.getmember("here").linkname == "/opt/there"


def lock(files: list[ContextFile], parent: str = "p", **changes: object) -> str:
    return inputs.lock_of(app(**changes), files, parent)


def test_the_lock_follows_everything_that_decides_the_content() -> None:
    file = ContextFile("a", b"1")
    other = ContextFile("b", b"2")
    locks = [
        lock([file]),
        lock([file], parent="q"),
        lock([file], version="1.3"),
        lock([file], revision=2),
        lock([file, other]),
        lock([replace(file, data=b"2")]),
        lock([replace(file, path="b")]),
        lock([replace(file, executable=True)]),
        lock([replace(file, link=True)]),
    ]
    assert len(set(locks)) == len(locks)


def test_the_lock_ignores_order_and_words_of_the_catalogue() -> None:
    files = [ContextFile("a", b"1"), ContextFile("b", b"2")]
    assert lock(files) == lock(files[::-1]) == lock(files, summary="Another sentence.")


def test_two_files_cannot_be_taken_for_one() -> None:
    joined = [ContextFile("a", b"1b\0file\x001\x002")]
    assert lock([ContextFile("a", b"1"), ContextFile("b", b"2")]) != lock(joined)


def test_equal_inputs_make_equal_contexts() -> None:
    files = [ContextFile("Dockerfile", b"FROM x"), ContextFile("run", b"#!", executable=True)]
    first = inputs.context(files, ["site-ca"])
    assert first.getvalue() == inputs.context(files, ["site-ca"]).getvalue()
    with tarfile.open(fileobj=first) as archive:
        modes = {member.name: member.mode for member in archive}
        owners = {(member.uid, member.gid, member.mtime) for member in archive}
    assert modes == {"site-ca": 0o755, "Dockerfile": 0o644, "run": 0o755}
    assert owners == {(0, 0, 315532800)}


def test_certificates_of_the_machine_are_taken(tmp_path: Path) -> None:
    (tmp_path / "site.crt").write_bytes(CERTIFICATE)
    (tmp_path / "readme").write_text("no certificate")
    assert inputs.site_certificates({}, tmp_path) == (ContextFile("site-ca/site.crt", CERTIFICATE),)


def test_a_bundle_is_split(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# one\n" + CERTIFICATE + b"# two\n" + CERTIFICATE)
    found = inputs.site_certificates({"EPIC_CA_BUNDLE": str(bundle)}, tmp_path / "none")
    assert [file.path for file in found] == [
        "site-ca/epic-bundle-000.crt",
        "site-ca/epic-bundle-001.crt",
    ]
    assert {file.data for file in found} == {CERTIFICATE}


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_a_bad_bundle_is_told(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(InputError, match="EPIC_CA_BUNDLE"):
        inputs.site_certificates({"EPIC_CA_BUNDLE": str(bundle)}, tmp_path)


def test_proxies_are_handed_on_as_they_were_set() -> None:
    environ = {"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2", "no_proxy": "", "PATH": "/"}
    assert inputs.proxy_arguments(environ) == {
        "http_proxy": "http://p:1",
        "HTTPS_PROXY": "http://p:2",
    }


@pytest.mark.parametrize(
    ("arguments", "local"),
    [
        ({"http_proxy": "http://localhost:3128"}, True),
        ({"HTTPS_PROXY": "127.0.0.1:3128"}, True),
        ({"http_proxy": "http://proxy.example.com:3128", "no_proxy": "localhost"}, False),
        ({}, False),
    ],
)
def test_a_proxy_on_this_host_is_noticed(arguments: dict[str, str], local: bool) -> None:  # noqa: FBT001
    assert inputs.proxy_on_this_host(arguments) is local
