"""The scripts that a template declares, read from beside its file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from epic_runner.cluster import DeclaredAction
from epic_runner.scripts import flaw
from epic_runner.spec.models import Action
from epic_runner.spec.reader import printable

# A script comes back in a template that `export` writes, and no file of YAML has more than 1 MB.
LARGEST_BYTES: Final = 1 << 18


# What a name that people give may have, too.
NAME_LETTERS: Final = 200


class ScriptError(ValueError):
    """A script that nodes cannot be given; `message` is a sentence, `hint` may be None."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def declared(action: Action, folder: Path) -> DeclaredAction:
    """Return an action as a cluster's spec has it, its script with it.

    Args:
        action: As the template has it.
        folder: Where the template's file is.

    Raises:
        ScriptError: The script cannot be read, or could run nowhere.
    """
    if action.run is not None:
        name = printable(Path(action.run).name)
        script = _read(folder / action.run)
    else:
        name = command_name(action.command or "")
        script = (action.command or "").encode()
    message, hint = flaw(action.run or name, script, LARGEST_BYTES)
    if message:
        raise ScriptError(message, hint)
    return DeclaredAction(
        name=action.name or name[:NAME_LETTERS],
        digest=hashlib.sha256(script).hexdigest(),
        roles=action.roles,
        arguments=action.args,
        environment=action.env,
        sudo=action.sudo,
        replay=action.replay,
        timeout_seconds=action.timeout or 0,
        on_failure=action.on_failure,
        script=script,
    )


def command_name(command: str) -> str:
    """Return what an action is called of which only the command is known."""
    return printable(" ".join(command.split()))[:NAME_LETTERS]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            script = stream.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ScriptError(f"There is no file {path}.") from None
    except OSError as problem:
        raise ScriptError(f"{path} cannot be read: {problem.strerror}.") from None
    try:
        script.decode()
    except UnicodeDecodeError:
        raise ScriptError(
            f"{path} is no text in UTF-8.",
            "Put a program into the tenant's storage, and have a short script start it there.",
        ) from None
    return script
