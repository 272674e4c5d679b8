"""Unpacking what nodes hand out: files and folders alone, nowhere but below one folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

from epic_runner.resources import private_directory


def unpacked(data: bytes, folder: Path) -> list[Path]:
    """Unpack a tar archive into a folder; return its files.

    People's programs wrote what is in it: links and devices are left out, and so is what would be
    outside of the folder.
    """
    files = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                continue
            target = folder / name
            if member.isdir():
                private_directory(target)
            elif member.isfile() and (content := tar.extractfile(member)):
                private_directory(target.parent)
                with target.open("wb") as file:
                    while piece := content.read(1 << 20):
                        file.write(piece)
                files.append(target)
    return files
