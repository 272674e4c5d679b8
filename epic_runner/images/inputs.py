"""What goes into an image: files, site certificates, proxies; their hash and the build context."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

from epic_runner.errors import EpicError, InputError
from epic_runner.spec.models import App

# Files of an image's folder that say nothing about its content.
IGNORED = ("app.yml", "*.in", "*.md", "__pycache__", "*.pyc", ".*")

APT_LOCK = "apt.lock"
SITE_CA_FOLDER = "site-ca"
SITE_CA_SOURCE = Path("/usr/local/share/ca-certificates")
CA_BUNDLE_VARIABLE = "EPIC_CA_BUNDLE"

# Docker knows these build arguments without a declaration and keeps them out of the image.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# One time for all files of a context, so that equal inputs make equal contexts; ZIP's epoch.
_MTIME = 315532800


@dataclass(frozen=True)
class ContextFile:
    """One file of a build context.

    Attributes:
        path: Its path in the context, with slashes.
        data: Its bytes; for a symbolic link its target.
        executable: Whether it may be executed.
        link: Whether it is a symbolic link.
    """

    path: str
    data: bytes
    executable: bool = False
    link: bool = False


def folder_files(folder: Path) -> tuple[ContextFile, ...]:
    """Return the files of an image's folder that decide its content, sorted by path.

    Raises:
        EpicError: A file cannot be read.
    """
    found: list[ContextFile] = []
    try:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not _ignored(name)]
            for name in names:
                path = Path(parent, name)
                if _ignored(name):
                    continue
                relative = path.relative_to(folder).as_posix()
                if path.is_symlink():
                    found.append(ContextFile(relative, os.fsencode(path.readlink()), link=True))
                else:
                    executable = bool(path.stat().st_mode & 0o100)
                    found.append(ContextFile(relative, path.read_bytes(), executable))
    except OSError as error:
        raise EpicError(f"{error.filename}: {error.strerror}.") from error
    return tuple(sorted(found, key=lambda file: file.path))


def _ignored(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in IGNORED)


def site_certificates(
    environ: Mapping[str, str], source: Path = SITE_CA_SOURCE
) -> tuple[ContextFile, ...]:
    """Return the certificate authorities that this site adds to the public ones.

    They are those that the machine's administrator put into `source`, and the file that
    `EPIC_CA_BUNDLE` names.

    Raises:
        InputError: `EPIC_CA_BUNDLE` names a file that cannot be read or holds no certificate.
    """
    # An unreadable certificate of the machine is none of ours to complain about.
    files = [
        ContextFile(f"{SITE_CA_FOLDER}/{path.name}", path.read_bytes())
        for path in sorted(source.glob("*.crt"))
        if path.is_file() and os.access(path, os.R_OK)
    ]
    bundle = environ.get(CA_BUNDLE_VARIABLE)
    if bundle:
        try:
            data = Path(bundle).read_bytes()
        except OSError as error:
            raise InputError(f"{CA_BUNDLE_VARIABLE}: {bundle}: {error.strerror}.") from error
        if b"-----BEGIN CERTIFICATE-----" not in data:
            raise InputError(f"{CA_BUNDLE_VARIABLE}: {bundle} holds no PEM certificate.")
        files += _split_bundle(data)
    return tuple(files)


def _split_bundle(data: bytes) -> list[ContextFile]:
    """Return one file a certificate: update-ca-certificates takes no more than one from a file."""
    end = b"-----END CERTIFICATE-----"
    parts = [part[part.find(b"-----BEGIN CERT") :] for part in data.split(end)[:-1]]
    return [
        ContextFile(f"{SITE_CA_FOLDER}/epic-bundle-{number:03}.crt", part + end + b"\n")
        for number, part in enumerate(parts)
    ]


def proxy_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's proxy variables, in the spellings in which they were set."""
    names = [*PROXY_VARIABLES, *(name.upper() for name in PROXY_VARIABLES)]
    return {name: environ[name] for name in names if environ.get(name)}


def proxy_on_this_host(arguments: Mapping[str, str]) -> bool:
    """Tell whether a proxy is named by a loopback address, which only the host itself reaches."""
    for name, value in arguments.items():
        if name.lower() == "no_proxy":
            continue
        if urlsplit(value if "://" in value else f"//{value}").hostname in _LOOPBACK:
            return True
    return False


def lock_of(app: App, files: Iterable[ContextFile], parent_lock: str) -> str:
    """Return the hash over everything that decides an image's content, as 64 hexadecimal digits.

    Whether Debian served the locked versions is not in it: that is known only after a build.
    """
    digest = hashlib.sha256()
    for text in (app.reference, parent_lock):
        digest.update(text.encode() + b"\0")
    for file in sorted(files, key=lambda file: file.path):
        kind = "link" if file.link else "executable" if file.executable else "file"
        digest.update(f"{file.path}\0{kind}\0{len(file.data)}\0".encode())
        digest.update(file.data)
    return digest.hexdigest()


def context(files: Iterable[ContextFile], folders: Iterable[str] = ()) -> io.BytesIO:
    """Return a build context as an uncompressed tar, owned by root and without times.

    Args:
        files: The files.
        folders: Folders that must be there even if nothing is in them.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for folder in folders:
            entry = _entry(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o755
            archive.addfile(entry)
        for file in files:
            entry = _entry(file.path)
            if file.link:
                entry.type = tarfile.SYMTYPE
                entry.linkname = os.fsdecode(file.data)
                archive.addfile(entry)
                continue
            entry.size = len(file.data)
            entry.mode = 0o755 if file.executable else 0o644
            archive.addfile(entry, io.BytesIO(file.data))
    stream.seek(0)
    return stream


def _entry(path: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mtime = _MTIME
    entry.uname = entry.gname = "root"
    return entry
