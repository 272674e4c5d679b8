"""ansible-playbook, started before it is known what it will play.

Ansible takes as long to import as epic-run needs to read its files and reserve what they ask for.
Both are done at once: `begin` starts an `ansible_server`, which imports Ansible and waits.
ansible-runner is then given the command of an `ansible_relay` in place of ansible-playbook's; the
relay hands its arguments, environment and terminal to the server, and ends as the server does. If
there is no server, or it can't be what was asked for, the relay becomes ansible-playbook itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from epic_runner.processes import CONTROLLER_VARIABLE, controller, seen_by_plays
from epic_runner.resources import content_root

_RELAY = Path(__file__).parent / "ansible_relay.py"


class Ahead:
    """A server that is on its way.

    Attributes:
        process: It, at the head of a session of its own.
    """

    def __init__(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The kernel chooses a free name, which is in no file system: nothing is ever left.
            listener.bind("")
            listener.listen(1)
            self._address = listener.getsockname()[1:].decode("ascii")
            # Its standard input is a pipe that only this process writes to: at its end, the
            # server knows that nobody is going to ask for it any more.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "epic_runner.ansible_server", str(listener.fileno())],
                env={
                    **seen_by_plays(os.environ),
                    **settings(),
                    CONTROLLER_VARIABLE: controller(),
                },
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is the controller's to see; it ends the play in its own way.
                start_new_session=True,
            )

    def command(self, command: Sequence[str]) -> list[str]:
        """Return what to run in place of a command of ansible-playbook."""
        return [sys.executable, "-ISE", str(_RELAY), self._address, *command]

    def end(self) -> None:
        """Wait for the server's end, which comes by itself."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def settings() -> dict[str, str]:
    """Return the variables that ansible-runner will give to ansible-playbook and that last."""
    from importlib.util import find_spec

    spec = find_spec("ansible_runner")
    folder = Path(str(spec and spec.origin)).parent
    return {
        "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(folder / "display_callback" / "callback"),
        "ANSIBLE_STDOUT_CALLBACK": "awx_display",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
    }


begun: list[Ahead] = []


def begin() -> None:
    """Start the server for this process's first play. Without it that play only starts later."""
    with contextlib.suppress(OSError):
        begun.append(Ahead())


def take() -> Ahead | None:
    """Return the server if it is still to be had; it plays once."""
    return begun.pop() if begun else None
