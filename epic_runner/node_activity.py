# What runs inside a node, by the node's own Python: it must be one file, of the standard library.
# ruff: noqa: T201, PTH123, PTH204
"""Tells what a node is used for now, as JSON: sessions, jobs, kernels, Spark applications.

`activity` sends this file to nodes and makes up its mind from what it prints. Times are ages in
seconds, since clocks of nodes and of the controller need not agree.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import pwd
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Members of a tenant have ids from here on.
FIRST_UID = 20000
# What a service may take to answer; one that does not is busy, or hangs, and nobody knows.
ANSWER_SECONDS = 4.0
# A shell at its prompt that nobody has typed into for so long was left behind: Docker does not
# tell a shell that its terminal is gone.
FORGOTTEN_SECONDS = 24 * 3600
# Where Spark's drivers serve their pages: the first free port from 4040 on.
DRIVER_PORTS = range(4040, 4140)
# A job whose start was cut off is never going to run.
STARTING_SECONDS = 600

SSH_LOG = "/data/log/ssh/current"

_LISTENING = "0A"
_NOT_FOUND = 404


@dataclass(frozen=True)
class Process:
    """A process of the node, as /proc has it; `terminal` is 0 where it has none."""

    pid: int
    name: str
    parent: int
    group: int
    session: int
    terminal: int
    foreground: int
    uid: int
    command: bytes = b""


@dataclass(frozen=True)
class Sign:
    """Something that a node is used for, so many seconds ago (0: now)."""

    what: str
    ago: float = 0.0


def parse_stat(text: str, uid: int, command: bytes = b"") -> Process:
    """Return the process that a line of /proc/PID/stat describes (proc(5))."""
    before, _, after = text.rpartition(")")
    pid, _, name = before.partition(" (")
    fields = after.split()
    parent, group, session, terminal, foreground = map(int, fields[1:6])
    return Process(int(pid), name, parent, group, session, terminal, foreground, uid, command)


def processes() -> dict[int, Process]:
    """Return all processes of the node but the dead ones, by their ids."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - the fastest there is
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                folder = f"/proc/{entry}"
                with open(f"{folder}/stat", encoding="utf-8", errors="replace") as stat:
                    text = stat.read()
                with open(f"{folder}/cmdline", "rb") as line:
                    command = line.read(4096)
                process = parse_stat(text, os.stat(folder).st_uid, command)  # noqa: PTH116
                if ") Z " not in text:
                    found[process.pid] = process
    return found


def above(process: Process, known: Mapping[int, Process]) -> Iterator[Process]:
    """Go through a process and all above it."""
    current: Process | None = process
    while current is not None:
        yield current
        current = known.get(current.parent)


def is_kept(process: Process, known: Mapping[int, Process]) -> bool:
    """Whether a terminal is one that a program keeps, whether or not somebody sits before it."""
    keepers = ("jupyter", "tmux", "screen", "SCREEN")
    return any(item.name.startswith(keepers) for item in above(process, known))


def sessions(known: Mapping[int, Process], untouched: Mapping[int, float]) -> list[Sign]:
    """Return who is logged in.

    A member's process that has no parent here came from outside, by `epic-run shell`; what comes
    from there as root are the questions of epic-run. A terminal of JupyterLab or tmux counts only
    while something runs in it.

    Args:
        known: The processes.
        untouched: For how many seconds each terminal has seen neither a key nor a letter.
    """
    signs = []
    for process in known.values():
        who = name_of(process.uid)
        if process.terminal:
            if process.pid != process.session:
                continue
            at_prompt = process.foreground in (process.group, -1)
            kept = is_kept(process, known)
            forgotten = untouched.get(process.terminal, 0.0) > FORGOTTEN_SECONDS
            if not (at_prompt and (kept or forgotten)):
                signs.append(Sign(f"{'a terminal' if kept else 'a shell'} of {who}"))
        elif process.uid >= FIRST_UID and process.name.startswith("sshd"):
            signs.append(Sign(f"an SSH session of {who}"))
        elif process.uid >= FIRST_UID and process.parent == 0:
            signs.append(Sign(f"a command of {who}"))
    return signs


def drivers(known: Mapping[int, Process]) -> list[Sign]:
    """Return Spark drivers that are no notebook's: those of notebooks count by what they do."""
    return [
        Sign(f"a Spark application of {name_of(process.uid)}")
        for process in known.values()
        if process.name == "java"
        and b"org.apache.spark.deploy.SparkSubmit" in process.command
        and not any(item.name.startswith("jupyter") for item in above(process, known))
    ]


def jobs(lines: Iterable[str], now: float) -> list[Sign]:
    """Return the jobs and actions that `epic-job list` tells of."""
    signs = []
    for line in lines:
        job = json.loads(line)
        ago = 0.0
        if job["state"] == "done":
            ago = max(now - job["ended"], 0.0)
        elif job["state"] == "vanished" or (
            job["state"] == "starting" and now - job["created"] > STARTING_SECONDS
        ):
            continue
        signs.append(Sign(f"the job {job['id']} of {job['user']}", ago))
    return signs


def kernels(answer: Iterable[Mapping[str, Any]], now: float) -> list[Sign]:
    """Return the notebook kernels that Jupyter's /api/kernels tells of."""
    return [
        Sign("a notebook", 0.0)
        if kernel["execution_state"] == "busy"
        else Sign("a notebook", max(now - moment(kernel["last_activity"]), 0.0))
        for kernel in answer
    ]


def applications(answer: Mapping[str, Any], now: float) -> tuple[list[Sign], list[dict[str, Any]]]:
    """Return what Spark's master tells (/json/): signs, and the applications under way.

    Whether one that is under way works, only its driver knows.
    """
    signs = [Sign(f"the driver {driver['id']}") for driver in answer.get("activedrivers") or ()]
    for app in answer.get("completedapps") or ():
        ended = (app["starttime"] + max(app["duration"], 0)) / 1000
        signs.append(Sign(f"the Spark application {app['name']}", max(now - ended, 0.0)))
    active = [
        {key: app.get(key) for key in ("id", "name", "user", "cores", "state")}
        for app in answer.get("activeapps") or ()
    ]
    return signs, active


def work(name: str, running: list[Any], done: list[Any], now: float) -> list[Sign]:
    """Return what a driver's own jobs tell of an application.

    Args:
        name: The application's name.
        running: Its jobs that run.
        done: All of its jobs, as far as it remembers them.
        now: Seconds since the epoch.
    """
    what = f"the Spark application {name}"
    if running:
        return [Sign(what)]
    ends = [moment(job["completionTime"]) for job in done if job.get("completionTime")]
    return [Sign(what, max(now - max(ends), 0.0))] if ends else []


def moment(text: str) -> float:
    """Return the seconds since the epoch of Jupyter's and Spark's notations of a time."""
    text = text.replace("GMT", "+00:00").replace("Z", "+00:00")
    return dt.datetime.fromisoformat(text).timestamp()


def name_of(uid: int) -> str:
    """Return an account's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def fetch(urls: Iterable[str], token: str = "") -> Any:
    """Return the JSON of the first address that the service knows; raises OSError."""
    # No proxy of the node's environment: the services are the node's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    problem: Exception = OSError("no address")
    for url in urls:
        request = urllib.request.Request(url)  # noqa: S310 - our own addresses
        if token:
            request.add_header("Authorization", f"token {token}")
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            problem = error
            if error.code != _NOT_FOUND:
                break
        except ValueError as error:
            problem = OSError(str(error))
        except OSError as error:
            problem = error
            break
    raise problem


def listening() -> list[tuple[str, int]]:
    """Return the addresses at which drivers may serve their pages."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                if fields[3] == _LISTENING and int(port, 16) in DRIVER_PORTS:
                    found.add((_address(address, family), int(port, 16)))
    return sorted(found)


def _address(text: str, family: socket.AddressFamily) -> str:
    """Return an address of /proc/net/tcp (words of the machine's own byte order) to connect to."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    address = socket.inet_ntop(family, packed).removeprefix("::ffff:")
    if address in ("0.0.0.0", "::"):  # noqa: S104 - looked for, not bound
        return "127.0.0.1"
    return f"[{address}]" if ":" in address else address


def untouched(now: float) -> dict[int, float]:
    """Return for how many seconds each terminal has seen neither a key nor a letter."""
    found = {}
    for entry in os.scandir("/dev/pts"):
        with contextlib.suppress(OSError):
            stat = entry.stat()
            found[stat.st_rdev] = max(now - max(stat.st_atime, stat.st_mtime), 0.0)
    return found


def ssh_traces(now: float) -> list[Sign]:
    """Return the last SSH session that came or went, which the server has written down."""
    try:
        return [Sign("an SSH session", max(now - os.path.getmtime(SSH_LOG), 0.0))]
    except OSError:
        return []


def look(asked: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return what the node is used for: `signs`, `active`, `known`, and `doubts`.

    Args:
        asked: The addresses of each service that this node runs: `jupyter`, `spark-master`.
    """
    now = time.time()
    found = processes()
    signs = [*sessions(found, untouched(now)), *ssh_traces(now), *drivers(found)]
    active: list[dict[str, Any]] = []
    known: list[str] = []
    doubts: list[str] = []
    listed = subprocess.run(["epic-job", "list"], capture_output=True, text=True, check=False)
    signs += jobs(listed.stdout.splitlines(), now)
    if listed.returncode:
        doubts.append("its jobs cannot be listed")
    if "jupyter" in asked:
        try:
            with open("/etc/epic/secrets/jupyter-token", encoding="ascii") as file:
                token = file.read().strip()
            signs += kernels(fetch(asked["jupyter"], token), now)
        except (OSError, ValueError, KeyError):
            doubts.append("JupyterLab does not answer")
    if "spark-master" in asked:
        try:
            more, active = applications(fetch(asked["spark-master"]), now)
            signs += more
        except (OSError, ValueError, KeyError):
            doubts.append("Spark's master does not answer")
    for address, port in listening():
        base = f"http://{address}:{port}/api/v1/applications"
        try:
            for app in fetch([base]):
                known.append(app["id"])
                jobs_of = f"{base}/{app['id']}/jobs"
                running = fetch([f"{jobs_of}?status=running"])
                done = [] if running else fetch([jobs_of])
                signs += work(app["name"], running, done, now)
        except (OSError, ValueError, KeyError):
            doubts.append(f"the Spark driver at port {port} does not answer")
    return {
        "signs": [vars(sign) for sign in signs],
        "active": active,
        "known": known,
        "doubts": doubts,
    }


if __name__ == "__main__":
    print(json.dumps(look(json.loads(sys.argv[1]))))
