# ruff: noqa: INP001 - a program of the image, no part of a package
"""Makes a jar that holds nothing but the names of all jars of a folder, as its class path.

A class data archive is valid for the class path that it was made with, word by word. Drivers and
executors are started with a wildcard, which every file system lists in an order of its own; this
jar in front of it is one word that means the same everywhere (JAR File Specification, Class-Path).

    class_path_jar.py TARGET.jar FOLDER
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

LINE = 72  # bytes of a manifest's line at most; what is longer goes on behind a space


def manifest(names: list[str]) -> str:
    """Return a manifest that has the names as its class path."""
    rest = f"Class-Path: {' '.join(names)}"
    lines = []
    while rest:
        lines.append(rest[:LINE])
        rest = rest[LINE:] and f" {rest[LINE:]}"
    return "\r\n".join(["Manifest-Version: 1.0", *lines, "", ""])


def main(target: str, folder: str) -> None:
    """Make the jar."""
    jars = sorted(Path(folder).glob("*.jar"))
    names = [os.path.relpath(jar, Path(target).parent) for jar in jars]
    with zipfile.ZipFile(target, "w") as jar:
        jar.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), manifest(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
