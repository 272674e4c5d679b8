"""Where the base image comes from: an image registry, or Debian's own packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import IO, Protocol

from epic_runner.errors import EpicError
from epic_runner.images.inputs import ContextFile

SUITE = "bookworm"
LOCAL_REFERENCE = "epic/rootfs:12"
# An image registry that takes longer to say whether it has the image counts as unreachable.
REGISTRY_SECONDS = 5.0

_KEEP_SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)


class ParentEngine(Protocol):
    """What getting the base's parent needs of a Docker engine."""

    def has(self, reference: str) -> bool:
        """Tell whether the engine has the image."""

    def pull(self, reference: str, patience: float) -> bool:
        """Pull the image if a registry answers within `patience` seconds; tell whether it did."""

    def import_rootfs(self, stream: IO[bytes], reference: str) -> None:
        """Make an image of one layer from a tar."""


def default_parent(files: tuple[ContextFile, ...]) -> str:
    """Return the parent that a base's Dockerfile names: `ARG PARENT_IMAGE=debian:12-slim`.

    Raises:
        EpicError: It names none.
    """
    for file in files:
        if file.path == "Dockerfile":
            found = re.search(rb"^ARG PARENT_IMAGE=(\S+)", file.data, re.MULTILINE)
            if found:
                return found[1].decode()
    raise EpicError("The Dockerfile of an app without a parent must say ARG PARENT_IMAGE=….")


def get_parent(
    reference: str, engine: ParentEngine, note: Callable[[str], None], *, exactly: bool = False
) -> str:
    """Return an image to build the base on: `reference` itself or one made from Debian's packages.

    Args:
        reference: The image that is wanted, such as `debian:12-slim`.
        engine: The Docker engine.
        note: Told what happens, one sentence at a time.
        exactly: Whether only `reference` itself will do.

    Raises:
        EpicError: Neither a registry nor Debian's packages can be had.
    """
    for candidate in (reference,) if exactly else (reference, LOCAL_REFERENCE):
        if engine.has(candidate):
            return candidate
    note(f"pulling {reference}")
    if engine.pull(reference, REGISTRY_SECONDS):
        return reference
    if exactly:
        raise EpicError(f"There is no image {reference} here, and it cannot be pulled.")
    note("no image registry answers: making the base from Debian's packages (half a minute)")
    _bootstrap(engine)
    return LOCAL_REFERENCE


def _bootstrap(engine: ParentEngine) -> None:
    """Make `LOCAL_REFERENCE` with mmdebstrap."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise EpicError(
            "No image registry answers, and mmdebstrap, which makes a base image without one, "
            "is not installed.",
            "sudo apt-get install mmdebstrap debian-archive-keyring",
        )
    command = [program, "--variant=minbase", "--quiet"]
    command += [f"--dpkgopt={option}" for option in _KEEP_SLIM]
    command += [SUITE, "-"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        if process.stdout is None:
            raise AssertionError
        with tempfile.TemporaryFile() as archive:
            shutil.copyfileobj(process.stdout, archive)
            if process.wait() == 0:
                archive.seek(0)
                engine.import_rootfs(archive, LOCAL_REFERENCE)
                return
        errors.seek(0)
        last = errors.read().decode("utf-8", "replace").strip().splitlines()[-10:]
        raise EpicError(
            "mmdebstrap could not make the base image; its last lines:\n  " + "\n  ".join(last),
            "It needs root, or user namespaces with /etc/subuid, and a reachable Debian mirror.",
        )
