"""Imports Ansible, then waits for an `ansible_relay` to say what to play.

Run by `ahead`, with a listening socket's number as its argument. It ends without a word when its
standard input does, which is when the controller has no use for it any more.
"""

from __future__ import annotations

import functools
import json
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from epic_runner.ansible_relay import owner

# These differ from play to play and are read when they are needed; all others are read by Ansible
# when it is imported, and can't be changed any more.
_READ_LATE = ("ANSIBLE_CACHE_PLUGIN_CONNECTION",)


def main() -> None:
    """Import, wait, play, and end with the play's exit code."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    _import_ansible()
    ready, _, _ = select.select([listener, sys.stdin], [], [])
    if listener not in ready:
        return
    connection, _ = listener.accept()
    listener.close()
    if owner(connection) != os.getuid():
        return
    head, descriptors, _, _ = socket.recv_fds(connection, struct.calcsize(">L"), 4)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(*struct.unpack(">L", head)))
    if not _agrees(request["environment"]):
        return
    connection.sendall(b"y")
    *streams, folder = descriptors
    for number, taken in enumerate(streams):
        os.dup2(taken, number)
    os.fchdir(folder)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["arguments"]
    connection.sendall(bytes([_play(request["arguments"])]))


def _import_ansible() -> None:
    """Import what a play needs, and read Ansible's table of its own plugins."""
    import ansible.cli.playbook
    import ansible.executor.playbook_executor
    import ansible.executor.task_executor
    import ansible.plugins.action
    import ansible.plugins.callback.default
    import ansible.plugins.inventory.yaml
    import ansible.plugins.strategy.linear
    from ansible.utils.collection_loader import _collection_finder

    # A fifth of a second; Ansible sets this function itself, for others to replace.
    names: dict[str, Any] = vars(_collection_finder)
    read = names["_meta_yml_to_dict"] = functools.cache(names["_meta_yml_to_dict"])
    table = Path(ansible.__file__).parent / "config" / "ansible_builtin_runtime.yml"
    read(table.read_bytes(), ("ansible.builtin", "runtime.yml"))


def _agrees(environment: dict[str, str]) -> bool:
    """Whether Ansible, as it was imported, is what it would be in this environment."""

    def settings(variables: Any) -> dict[str, str]:
        return {
            name: value
            for name, value in variables.items()
            if name.startswith("ANSIBLE_") and name not in _READ_LATE
        }

    return settings(environment) == settings(os.environ)


def _play(arguments: list[str]) -> int:
    from ansible.cli.playbook import PlaybookCLI

    try:
        PlaybookCLI.cli_executor(arguments)  # type: ignore[no-untyped-call]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    main()
