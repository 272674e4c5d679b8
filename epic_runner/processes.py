"""Processes of this machine: what they see, which still live, which a dead controller left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from epic_runner.host_secrets import is_secret

# Set in the environment of all that an operation, or a controller, starts.
OPERATION_VARIABLE = "EPIC_OPERATION"
CONTROLLER_VARIABLE = "EPIC_CONTROLLER"

LEFTOVERS_SECONDS = 5.0
# How often who waits for a thread looks for signals.
SIGNAL_SECONDS = 0.2

# The exit code of a command that was cancelled, as shells have it: 128 and the number of SIGINT.
CANCELLED = 130


# What plays may see of the caller's environment: ansible-runner writes it all into a file, so
# nothing that could be a secret goes in. `host_secrets` hands over passwords for becoming root.
_KEPT = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR", "DOCKER_HOST")
_KEPT_PREFIXES = ("LC_", "ANSIBLE_", "EPIC_", "RUNNER_", "AWX_")
_SECRET = ("EPIC_DATABASE_URL",)


def started(pid: int) -> str:
    """Return when a process of this machine started, in ticks since boot; empty when it's gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may itself hold spaces and parentheses: proc(5), field 22.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def here() -> str:
    """Return where this process runs: the host's name, and what tells it from others of that name.

    A container on its host's network has its host's name, a cloned machine that of the first; a
    process id means another process there. So it is `NAME/BOOT.NAMESPACE.MACHINE`: the boot, the
    process ids' namespace (namespaces(7)) and the machine-id, the first and last shortened.
    """
    boot = _read("/proc/sys/kernel/random/boot_id")
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    # machine-id(5) asks not to show the id itself.
    machine = hashlib.sha256(_read("/etc/machine-id").encode()).hexdigest()
    return f"{platform.node()}/{boot[:8]}.{namespace}.{machine[:8]}"


def host_of(place: str) -> str:
    """Return the host's name of a controller, as people are told it."""
    return place.partition("/")[0]


def is_ours(place: str) -> bool:
    """Whether this machine looks after what a controller left that has no heartbeat.

    That is one which ran here, or here before the machine was started again, or an earlier version.
    """
    host, _, rest = place.partition("/")
    _, *stays = rest.split(".")
    _, *have = here().partition("/")[2].split(".")
    return host == platform.node() and (not rest or stays == have)


def drives(place: str, pid: int, since: str) -> bool:
    """Whether a controller's process is one of this machine, and lives.

    Args:
        place: Where it runs, as `here` says; earlier versions wrote the host's name alone.
        pid: Its id.
        since: When it started, as `started` says; empty for none.
    """
    return place in (here(), platform.node()) and bool(since) and started(pid) == since


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def controller(pid: int | None = None, since: str | None = None, place: str | None = None) -> str:
    """Return the value of CONTROLLER_VARIABLE that a process gives to what it starts.

    Args:
        pid: The process; this one by default.
        since: When it started, as `started` says; looked up by default.
        place: Where it runs, as `here` says; here by default.
    """
    pid = os.getpid() if pid is None else pid
    return f"{place or here()}:{pid}:{started(pid) if since is None else since}"


def end_leftovers(operation: str, of_controller: str) -> int:
    """End every process on this machine that a controller's death left of an operation.

    A killed controller leaves ansible-playbook and its workers running. They are found by the
    operation's id, or the controller, in their environment, which no process id reused by others
    can imitate.

    Returns:
        How many processes were ended.
    """
    marks = {
        f"{OPERATION_VARIABLE}={operation}".encode(),
        f"{CONTROLLER_VARIABLE}={of_controller}".encode(),
    }
    ended: set[int] = set()
    limit = time.monotonic() + LEFTOVERS_SECONDS
    # Again until none is left: one may start another while the list is read, and a killed one
    # may need a moment to be gone.
    while (found := _marked(marks)) and time.monotonic() < limit:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= found
        time.sleep(0.01)
    return len(ended)


def _marked(marks: set[bytes]) -> set[int]:
    """Return the processes, this one aside, that have one of these lines in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if not marks.isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                found.add(int(entry.name))
    return found


def detached(
    arguments: Sequence[str], log: Path, *, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start `epic-run ARGUMENT...` in a session of its own, which outlives this process.

    Args:
        arguments: What epic-run is to do.
        log: Takes what it prints.
        before: A command that becomes epic-run at some time; its input is then a pipe.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "epic_runner", *arguments],
            stdin=subprocess.PIPE if before else subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True, cwd="/", env={**os.environ, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip


def join(thread: threading.Thread) -> None:
    """Wait for a thread's end, and be open to Ctrl-C.

    Python looks for signals when a wait begins and when it ends. One that comes just before it
    sleeps, on a busy machine say, would be seen at the thread's end alone.
    """
    while thread.is_alive():
        thread.join(SIGNAL_SECONDS)


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """Return a command that gets SIGTERM when the thread that starts it is gone, however it ends.

    By util-linux's setpriv, prctl(2) PR_SET_PDEATHSIG; a machine without it leaves it running.
    """
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "TERM", "--", *command] if program else [*command]


def seen_by_plays(environment: Mapping[str, str], *, is_recorded: bool = True) -> dict[str, str]:
    """Return what plays may see of an environment, and this Python's programs first.

    Args:
        environment: All of it.
        is_recorded: Whether ansible-runner writes down what is returned: then without secrets.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES))
        and name not in _SECRET
        and not (is_recorded and is_secret(name))
    }
    # ansible-playbook is the one beside this Python, also when no environment was activated.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept
