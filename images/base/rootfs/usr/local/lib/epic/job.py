# A program of the image, whose life is short: it does without pathlib and typing.
# ruff: noqa: INP001, T201, PTH101, PTH102, PTH105, PTH112, PTH116, PTH119, PTH123, PTH208
"""The work of epic-job; imported, so that its compiled form is used."""

from __future__ import annotations

import base64
import contextlib
import errno
import getopt
import json
import math
import os
import pwd
import re
import signal
import sys
import time

from supervisor import begin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

JOBS = "/data/jobs"
GRACE = 5.0  # seconds between TERM and KILL
CHUNK = 1 << 16
TAKEN = UNKNOWN = 3
VANISHED = 125

LIMIT = 1 << 30  # bytes of output that are kept of each stream, if nothing else is said
SHORT = 1 << 14  # bytes that `start --follow` passes on, if nothing else is said
SCRIPT = "EPIC_SCRIPT"  # in the environment of `start --script`: the script's content in base64
MARK = "EPIC_JOB"  # in the environment of all that a job starts


def fail(message: str, code: int = 2) -> int:
    """Print an error; return the exit code."""
    print(f"epic-job: {message}", file=sys.stderr)
    return code


def started(pid: int) -> int | None:
    """Return the start time of a process in clock ticks, as its fingerprint; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def read_int(path: str) -> int | None:
    """Return the number that a file holds; None if there is none."""
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def read_command(job: str) -> dict[str, Any]:
    """Return what is recorded of a job."""
    with open(f"{job}/command.json") as file:
        record: dict[str, Any] = json.load(file)
        return record


def state(job: str) -> tuple[str, int | None]:
    """Return (state, rc) of a job's folder: starting, running, done or vanished."""
    rc = read_int(f"{job}/rc")
    if rc is not None:
        return "done", rc
    try:
        command = read_command(job)
    except (OSError, ValueError):
        return "starting", None
    if command["supervisor"] is None:
        return "starting", None
    if started(command["supervisor"][0]) == command["supervisor"][1]:
        return "running", None
    # The result may have come between the two looks.
    rc = read_int(f"{job}/rc")
    return ("vanished", None) if rc is None else ("done", rc)


def write_command(job: str, command: dict[str, Any]) -> None:
    """Record a job, at once and whole."""
    with open(f"{job}/.command", "w") as file:
        json.dump(command, file)
    os.replace(f"{job}/.command", f"{job}/command.json")


def environment(user: pwd.struct_passwd, extra: list[str]) -> dict[str, str]:
    """Return the environment of a login, and `extra` items NAME=VALUE."""
    env = {
        key: os.environ[key]
        for key in ("PATH", "LANG", "TZ", "JAVA_HOME", "SPARK_HOME", "SPARK_CONF_DIR",
                    "PYSPARK_PYTHON", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT",
                    "EPIC_TENANT", "EPIC_CLUSTER", "EPIC_ROLE", "EPIC_NODE", "EPIC_INDEX")
        if key in os.environ
    }  # fmt: skip
    env.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name, SHELL=user.pw_shell)
    env.update(item.partition("=")[::2] for item in extra)
    return env


def start(
    job: str,
    name: str,
    command: list[str],
    extra: list[str],
    *,
    sudo: bool = False,
    timeout: str = "",
    limit: int = LIMIT,
    script: str = "",
) -> int:
    """Start a job as a user, or as root on that user's behalf; return the exit code."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return fail(f"there is no user {name} on this node")
    if os.geteuid() not in (0, user.pw_uid) or (sudo and os.geteuid()):
        return fail("only root starts a job as somebody else")
    try:
        os.mkdir(job, 0o750)
    except FileExistsError:
        return fail(f"the job {os.path.basename(job)} exists already", TAKEN)
    record = {
        "id": os.path.basename(job),
        "user": name,
        "sudo": sudo,
        "timeout": timeout,
        "command": command,
        "created": round(time.time(), 3),
        "supervisor": None,
    }
    write_command(job, record)
    make_streams(job, user)
    if script:
        owner = (0, 0) if sudo else (user.pw_uid, user.pw_gid)
        command = [*write_script(f"{job}/{script}", owner), *command]
    if timeout:
        # It becomes the head of the job's group, and ends the whole of it.
        command = ["timeout", f"--kill-after={GRACE}", timeout, *command]
    env = environment(user, [f"{MARK}={os.path.basename(job)}", *extra])
    if sudo:
        env.update(HOME="/root", USER="root", LOGNAME="root", SUDO_USER=name)
    os.umask(0o022 if sudo else 0o002)
    supervisor = begin(job, limit, "root" if sudo else name, command, env)
    record["supervisor"] = [supervisor, started(supervisor)]
    write_command(job, record)
    while read_int(f"{job}/pid") is None and not os.waitpid(supervisor, os.WNOHANG)[0]:
        time.sleep(0.002)
    if read_int(f"{job}/pid") is None:
        return fail("it could not be begun: is its node out of processes, or its disk full?", 1)
    return 0


def make_streams(job: str, user: pwd.struct_passwd) -> None:
    """Make the files of a job's output, which its user and root can read."""
    os.umask(0o027)
    paths = [f"{job}/{stream}" for stream in ("stdout", "stderr")]
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))
    if os.geteuid() == 0:
        for path in (job, *paths):
            os.chown(path, 0, user.pw_gid)
        os.chmod(job, 0o750)  # noqa: S103 - its user reads it


def write_script(path: str, owner: tuple[int, int]) -> list[str]:
    """Write the script that came in the environment; return the command that runs it."""
    content = base64.b64decode(os.environ.pop(SCRIPT, ""))
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o500)
    if os.geteuid() == 0:
        os.chown(path, *owner)
    return [path] if content.startswith(b"#!") else ["bash", path]


def copy(source: int, target: int, most: float) -> int:
    """Copy what is new in one stream, up to `most` bytes; return how many those were."""
    count = 0
    while count < most and (chunk := os.read(source, int(min(CHUNK, most - count)))):
        count += len(chunk)
        while chunk:
            chunk = chunk[os.write(target, chunk) :]
    return count


def opened(job: str, offsets: tuple[int, int] | None) -> list[int]:
    """Open a job's streams behind what is known of them, or at their ends."""
    sources = [os.open(f"{job}/{name}", os.O_RDONLY) for name in ("stdout", "stderr")]
    places = offsets or [os.fstat(source).st_size for source in sources]
    for source, place in zip(sources, places, strict=True):
        os.lseek(source, place, os.SEEK_SET)
    return sources


def follow(
    job: str,
    offsets: tuple[int, int] | None,
    *,
    trailer: bool = False,
    seconds: float = math.inf,
    most: float = math.inf,
    wait: bool = False,
) -> int:
    """Pass on the output of a job until it ended; return its exit code.

    Args:
        job: The job's folder.
        offsets: How much of stdout and stderr is known already; all that there is yet if None.
        trailer: Whether the last line on stderr tells, behind a null character, the job's state,
            its exit code, and how many bytes of either stream were passed on or known before:
            whoever reads it knows that nothing was lost.
        seconds: Stop after this time, though the job goes on; the exit code is then 0.
        most: Stop after as many bytes.
        wait: Do not stop then: pass on no more, but see the end.
    """
    end = time.monotonic() + seconds
    try:
        sources = opened(job, offsets)
    except OSError:
        return fail(f"there is no job {os.path.basename(job)}", UNKNOWN)
    pause = 0.01
    try:
        while True:
            # The look at the state comes first: what was written before the end is then read.
            status, rc = state(job)
            moved = 0
            for source, target in zip(sources, (1, 2), strict=True):
                moved += copy(source, target, most - moved)
            most -= moved
            is_enough = most <= 0 and not wait
            if is_enough:
                # There may be more: who follows on learns how it ended.
                status = "running"
            if status in ("done", "vanished") or is_enough or time.monotonic() > end:
                return told(status, rc, sources, trailer=trailer)
            pause = 0.01 if moved else min(pause * 1.5, 0.1)
            time.sleep(pause)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def told(status: str, rc: int | None, sources: list[int], *, trailer: bool) -> int:
    """Tell how a job ended, or that it goes on; return the exit code of `follow`."""
    code = {"done": rc or 0, "vanished": VANISHED}.get(status, 0)
    if trailer:
        places = [os.lseek(source, 0, os.SEEK_CUR) for source in sources]
        os.write(2, f"\0{status} {code} {places[0]} {places[1]}\n".encode())
    elif status == "vanished":
        fail("the job is gone without a result: was its node restarted?")
    return code


def group_lives(group: int) -> bool:
    """Tell whether a process group has a member that is no zombie."""
    try:
        os.killpg(group, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
            return True
    return False


def marked(job: str) -> list[int]:
    """Return the processes that a job has started, those in sessions of their own among them.

    Its supervisor is none of them, nor what keeps the output: they have to see the end.
    """
    mark = f"{MARK}={os.path.basename(job)}".encode()
    supervisor = (read_command(job)["supervisor"] or [0])[0]
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as variables:
                is_ours = mark in variables.read().split(b"\0")
            if is_ours and os.getsid(int(entry)) != supervisor:
                found.append(int(entry))
        except OSError:
            continue
    return found


def end_marked(job: str, how: int) -> bool:
    """Send a signal to all that a job has started; return whether there was anything.

    The kernel shows the environment of processes to their own user only, also where root asks: the
    node's root may not trace. So the user does it.
    """
    child = os.fork()
    if child == 0:
        found = 0
        try:
            record = read_command(job)
            if os.geteuid() == 0 and not record.get("sudo"):
                user = pwd.getpwnam(record["user"])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            for pid in marked(job):
                found = 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
        except (OSError, ValueError, KeyError):
            pass
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def end_group(group: int, how: int) -> None:
    """Send a signal to what is left of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, how)


def cancel(job: str) -> int:
    """End a job with all its processes; return the exit code."""
    if not os.path.isdir(job):
        return fail(f"there is no job {os.path.basename(job)}", UNKNOWN)
    status, _ = state(job)
    end = time.monotonic() + 2
    while status == "starting" and time.monotonic() < end:
        time.sleep(0.01)
        status, _ = state(job)
    group = read_int(f"{job}/pid")
    if status != "running" or group is None:
        return 0
    if os.geteuid() not in (0, pwd.getpwnam(read_command(job)["user"]).pw_uid):
        return fail("this job belongs to somebody else", 1)
    end = time.monotonic() + GRACE
    for how in (signal.SIGTERM, signal.SIGCONT):
        end_group(group, how)
        end_marked(job, how)
    while (group_lives(group) or end_marked(job, 0)) and time.monotonic() < end:
        time.sleep(0.02)
    end_marked(job, signal.SIGKILL)
    end_group(group, signal.SIGKILL)
    end = time.monotonic() + 2
    while state(job)[0] == "running" and time.monotonic() < end:
        time.sleep(0.01)
    return 0


def listing() -> int:
    """Print all jobs as lines of JSON; return the exit code."""
    try:
        names = sorted(os.listdir(JOBS))
    except OSError:
        names = []
    for name in names:
        job = f"{JOBS}/{name}"
        try:
            command = read_command(job)
        except (OSError, ValueError):
            continue
        print(json.dumps(description(job, command)))
    return 0


def description(job: str, command: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to know of a job, but for its output."""
    status, rc = state(job)
    return {
        "id": os.path.basename(job),
        "user": command["user"],
        "state": status,
        "rc": rc,
        "created": command["created"],
        "ended": os.stat(f"{job}/rc").st_mtime if status == "done" else None,
        "cut": [name for name in ("stdout", "stderr") if f"{name}.cut" in os.listdir(job)],
        "command": command["command"],
    }


def show(job: str) -> int:
    """Print one job as a line of JSON; return the exit code."""
    try:
        print(json.dumps(description(job, read_command(job))))
    except (OSError, ValueError):
        return fail(f"there is no job {os.path.basename(job)}", UNKNOWN)
    return 0


def main(usage: str) -> int:
    """Do as the command line says; return the exit code."""
    args = sys.argv[1:]
    verb = args.pop(0) if args else ""
    if verb == "list" and not args:
        return listing()
    if verb not in VERBS or not args:
        return fail(usage)
    name = args.pop(0)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return fail(f"{name!r} is no name for a job")
    try:
        return VERBS[verb](f"{JOBS}/{name}", args)
    except (getopt.GetoptError, ValueError) as problem:
        return fail(f"{problem}\n{usage}")


def call_start(job: str, args: list[str]) -> int:
    """Read the rest of `start`'s line and do it."""
    options, command = getopt.getopt(args, "", START_OPTIONS)
    given = dict(options)
    extra = [value for key, value in options if key == "--env"]
    script = given.get("--script", "")
    if "--user" not in given or not (command or script) or "/" in script:
        raise getopt.GetoptError("it needs a user and a command")
    code = start(
        job,
        given["--user"],
        command,
        extra,
        sudo="--sudo" in given,
        timeout=given.get("--timeout", ""),
        limit=int(given.get("--limit", LIMIT)),
        script=script,
    )
    if code or "--follow" not in given:
        return code
    seconds, most = int(given["--follow"]) / 1000, int(given.get("--most", SHORT))
    follow(job, (0, 0), trailer=True, seconds=seconds, most=most, wait="--wait" in given)
    return 0


def call_follow(job: str, args: list[str]) -> int:
    """Read the rest of `follow`'s line and do it."""
    options, rest = getopt.getopt(args, "", ["from-start", "from", "trailer"])
    given = dict(options)
    offsets = (0, 0) if "--from-start" in given else None
    if "--from" in given:
        stdout, stderr = rest
        offsets, rest = (int(stdout), int(stderr)), []
    if rest:
        raise getopt.GetoptError("too many words")
    return follow(job, offsets, trailer="--trailer" in given)


def plain(act: Callable[[str], int]) -> Callable[[str, list[str]], int]:
    """Return a verb that takes nothing but a job."""

    def call(job: str, args: list[str]) -> int:
        if args:
            raise getopt.GetoptError("too many words")
        return act(job)

    return call


START_OPTIONS = [
    "user=",
    "sudo",
    "timeout=",
    "limit=",
    "env=",
    "script=",
    "follow=",
    "most=",
    "wait",
]
VERBS: dict[str, Callable[[str, list[str]], int]] = {
    "start": call_start,
    "follow": call_follow,
    "cancel": plain(cancel),
    "show": plain(show),
}
