"""Where the content (playbooks, roles, images, examples) and the state of this installation are."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def content_root() -> Path:
    """Return the folder that holds `playbooks/`, `roles/`, `images/` and `ansible.cfg`.

    A checkout has them beside the package; a wheel carries them inside it.
    """
    checkout = _PACKAGE.parent
    if (checkout / "playbooks").is_dir() and (checkout / "ansible.cfg").is_file():
        return checkout
    return _PACKAGE / "content"


def home() -> Path:
    """Return the folder of this installation's state: store, secrets, operations' artifacts.

    `EPIC_HOME` names it; the default follows the XDG base directories.
    """
    named = os.environ.get("EPIC_HOME")
    if named:
        return Path(named).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "epic-runner"


def private_directory(path: Path) -> Path:
    """Make `path` with access for its owner only, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path
