"""Running a playbook: the only module that knows ansible-runner."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epic_runner.errors import OperationFailed
from epic_runner.events import Listener, Translator
from epic_runner.resources import content_root, private_directory

# What plays may see of the caller's environment: ansible-runner writes it all into a file, so
# nothing that could be a secret goes in.
_KEPT = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR", "DOCKER_HOST")
_KEPT_PREFIXES = ("LC_", "ANSIBLE_", "EPIC_", "RUNNER_", "AWX_")
_SECRET = ("EPIC_DATABASE_URL",)

OPERATION_VARIABLE = "EPIC_OPERATION"
LEFTOVERS_SECONDS = 5.0


def run_playbook(
    verb: str,
    inventory: Mapping[str, Any],
    directory: Path,
    *,
    operation: str,
    listener: Listener,
) -> None:
    """Run `playbooks/VERB.yml` and tell `listener` of each step.

    Args:
        verb: The playbook's name without its ending.
        inventory: The inventory as data.
        directory: A folder of this run alone; inventory, output and events stay there.
        operation: The operation's id, with which `end_leftovers` finds the processes.
        listener: Called with every step, in this thread.

    Raises:
        OperationFailed: The play failed; the message names host or node and reason.
    """
    import ansible_runner

    private_directory(directory)
    path = directory / "inventory.json"
    path.write_text(json.dumps(inventory, indent=1), encoding="utf-8")
    translator = Translator(listener)
    runner = ansible_runner.interface.init_runner(  # type: ignore[no-untyped-call]
        private_data_dir=str(directory),
        project_dir=str(content_root()),
        playbook=str(content_root() / "playbooks" / f"{verb}.yml"),
        inventory=str(path),
        # The roles' validation of their arguments is tagged so. This inventory was written by a
        # tested function; people who run the playbooks themselves have theirs validated.
        skip_tags="always",
        event_handler=translator.handle,
        # Without one, ansible-runner catches Ctrl-C and SIGTERM itself, now and after the play.
        cancel_callback=lambda: False,
        quiet=True,
        settings={"pexpect_use_poll": True},
    )
    runner.config.env = {
        **_environment(runner.config.env),
        "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
        OPERATION_VARIABLE: operation,
    }
    try:
        runner.run()
    except BaseException:
        # Whatever ends this process's part, from Ctrl-C to a full disk: the play ends with it.
        end_leftovers(operation)
        raise
    if runner.status != "successful" or not translator.saw_events:
        raise translator.failure() or OperationFailed(
            f"The playbook {verb}.yml ended with {runner.status}.",
            f"Its whole output: {directory}/artifacts/*/stdout",
        )


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environment.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES)) and name not in _SECRET
    }
    # ansible-playbook is the one beside this Python, also when no environment was activated.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept


def end_leftovers(operation: str) -> int:
    """End every process on this machine that a controller's death left of an operation.

    A killed controller leaves ansible-playbook and its workers running. They are found by the
    operation's id in their environment, which no process id reused by others can imitate.

    Returns:
        How many processes were ended.
    """
    marker = f"{OPERATION_VARIABLE}={operation}".encode()
    ended: set[int] = set()
    limit = time.monotonic() + LEFTOVERS_SECONDS
    # Again until none is left: one may start another while the list is read, and a killed one
    # may need a moment to be gone.
    while (found := _marked(marker)) and time.monotonic() < limit:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= found
        time.sleep(0.01)
    return len(ended)


def _marked(marker: bytes) -> set[int]:
    """Return the processes, this one aside, that have a line in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found
