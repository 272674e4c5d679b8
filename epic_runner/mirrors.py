"""Where packages of Python and Debian come from at this site."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from epic_runner.errors import InputError
from epic_runner.spec.destinations import (
    PACKAGE_PORTS,
    Destination,
    DestinationError,
    parse_destination,
)

VARIABLE: Final = "EPIC_PACKAGE_MIRRORS"
_PIP_VARIABLES: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
_PIP_KEYS: Final = ("index-url", "extra-index-url", "find-links")
_PIP_FILES: Final = (
    "/etc/pip.conf",
    "/etc/xdg/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.config/pip/pip.conf",
)
_APT: Final = Path("/etc/apt")
_URL: Final = re.compile(r"https?://[^\s\"'#\]]+")
# How pip itself names its index and where that keeps files.
_PIP_INDEX: Final = re.compile(
    r'^PyPI = PackageIndex\(\s*"([^"]+)",\s*file_storage_domain="([^"]+)"', re.MULTILINE
)


def package_mirrors() -> tuple[Destination, ...]:
    """Return the servers of packages: those of `EPIC_PACKAGE_MIRRORS`, else pip's and apt's.

    Raises:
        InputError: The variable holds what is no server.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return of_urls([*pip_urls(), *apt_urls()])
    found: list[Destination] = []
    for item in filter(None, (part.strip() for part in named.split(","))):
        try:
            mirror = parse_destination(item)
        except DestinationError as problem:
            raise InputError(f"{VARIABLE}: {item} {problem.message}.", problem.hint) from problem
        ports = (mirror.port,) if mirror.port else PACKAGE_PORTS
        found += [Destination(mirror.to, port) for port in ports]
    return tuple(dict.fromkeys(found))


def of_urls(urls: Iterable[str]) -> tuple[Destination, ...]:
    """Return the servers of URLs, each with the ports that packages may come by."""
    found = set()
    for url in urls:
        parts = urlsplit(url)
        if parts.hostname:
            ports = (parts.port,) if parts.port else PACKAGE_PORTS
            found |= {Destination(parts.hostname, port) for port in ports}
    return tuple(sorted(found, key=lambda item: (item.to, item.port)))


def pip_urls() -> list[str]:
    """Return the indexes that pip uses here: what its settings say, else what it comes with."""
    found = [url for name in _PIP_VARIABLES for url in _URL.findall(os.environ.get(name, ""))]
    files = [*_PIP_FILES, f"{sys.prefix}/pip.conf", os.environ.get("PIP_CONFIG_FILE", "")]
    for name in filter(None, files):
        settings = configparser.RawConfigParser()
        try:
            settings.read(Path(name).expanduser(), encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        found += [
            url
            for section in settings.sections()
            for key in _PIP_KEYS
            for url in _URL.findall(settings.get(section, key, fallback=""))
        ]
    return found or _own_urls_of_pip()


def apt_urls() -> list[str]:
    """Return the archives that apt uses here."""
    files = [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
    found: list[str] = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        found += _URL.findall("\n".join(lines))
    return found


def _own_urls_of_pip() -> list[str]:
    match = _PIP_INDEX.search(_source_of_pip())
    return [match[1], f"https://{match[2]}/"] if match else []


def _source_of_pip() -> str:
    """Return the source by which pip knows its index; of an environment without pip, Python's."""
    spec = importlib.util.find_spec("pip")
    if spec and spec.origin:
        return (
            Path(spec.origin)
            .with_name("_internal")
            .joinpath("models", "index.py")
            .read_text("utf-8")
        )
    import ensurepip

    folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    for wheel in (path for folder in folders for path in folder.glob("pip-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read("pip/_internal/models/index.py").decode()
    return ""
