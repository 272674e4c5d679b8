# A program of the image, whose life is short: it does without pathlib and typing.
# ruff: noqa: INP001, T201, PTH101, PTH102, PTH105, PTH112, PTH116, PTH119, PTH123, PTH208
"""The work of epic-job; imported, so that its compiled form is used."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOBS = "/data/jobs"
GRACE = 5.0  # seconds between TERM and KILL
CHUNK = 1 << 16
TAKEN = UNKNOWN = 3
VANISHED = 125

# The supervisor: as small as a process gets, and the only one that knows how the job ended.
# $1 is the job's folder; the rest is the command. The job is a session and a process group.
SUPERVISOR = """
job=$1; shift
setsid "$@" </dev/null >"$job/stdout" 2>"$job/stderr" &
echo $! >"$job/.pid" && mv "$job/.pid" "$job/pid"
wait $!
rc=$?
echo $rc >"$job/.rc" && mv "$job/.rc" "$job/rc"
"""


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
                    "PYSPARK_PYTHON", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
        if key in os.environ
    }  # fmt: skip
    env.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name, SHELL=user.pw_shell)
    env.update(item.partition("=")[::2] for item in extra)
    return env


def start(job: str, name: str, command: list[str], extra: list[str]) -> int:
    """Start a job; return the exit code."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return fail(f"there is no user {name} on this node")
    if os.geteuid() not in (0, user.pw_uid):
        return fail("only root starts a job as somebody else")
    try:
        os.mkdir(job, 0o750)
    except FileExistsError:
        return fail(f"the job {os.path.basename(job)} exists already", TAKEN)
    record = {
        "id": os.path.basename(job),
        "user": name,
        "command": command,
        "created": round(time.time(), 3),
        "supervisor": None,
    }
    write_command(job, record)
    prefix = []
    os.umask(0o027)
    for stream in ("stdout", "stderr"):
        os.close(os.open(f"{job}/{stream}", os.O_CREAT | os.O_WRONLY, 0o640))
    if os.geteuid() == 0:
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
        for path in (job, f"{job}/stdout", f"{job}/stderr"):
            os.chown(path, 0, user.pw_gid)
        os.chmod(job, 0o750)  # noqa: S103 - its user reads it
    os.umask(0o002)
    home = user.pw_dir if os.path.isdir(user.pw_dir) else "/"
    supervisor = subprocess.Popen(
        ["/bin/sh", "-c", SUPERVISOR, "epic-job", job, *prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        env=environment(user, extra),
        start_new_session=True,
    )
    record["supervisor"] = [supervisor.pid, started(supervisor.pid)]
    write_command(job, record)
    while read_int(f"{job}/pid") is None and supervisor.poll() is None:
        time.sleep(0.002)
    return 0


def copy(source: int, target: int) -> bool:
    """Copy what is new in one stream; returns whether there was anything."""
    moved = False
    while chunk := os.read(source, CHUNK):
        moved = True
        while chunk:
            chunk = chunk[os.write(target, chunk) :]
    return moved


def follow(job: str, *, from_start: bool) -> int:
    """Pass on the output of a job until it ended; return its exit code."""
    try:
        sources = [os.open(f"{job}/{name}", os.O_RDONLY) for name in ("stdout", "stderr")]
    except OSError:
        return fail(f"there is no job {os.path.basename(job)}", UNKNOWN)
    if not from_start:
        for source in sources:
            os.lseek(source, 0, os.SEEK_END)
    pause = 0.01
    try:
        while True:
            # The look at the state comes first: what was written before the end is then read.
            status, rc = state(job)
            moved = [copy(source, target) for source, target in zip(sources, (1, 2), strict=True)]
            if rc is not None:
                return rc
            if status == "vanished":
                return fail("the job is gone without a result: was its node restarted?", VANISHED)
            pause = 0.01 if any(moved) else min(pause * 1.5, 0.1)
            time.sleep(pause)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


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
    end = time.monotonic() + GRACE
    try:
        os.killpg(group, signal.SIGTERM)
        os.killpg(group, signal.SIGCONT)
        while group_lives(group) and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        return fail("this job belongs to somebody else", 1)
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
        status, rc = state(job)
        ended = os.stat(f"{job}/rc").st_mtime if status == "done" else None
        print(json.dumps({
            "id": name, "user": command["user"], "state": status, "rc": rc,
            "created": command["created"], "ended": ended, "command": command["command"],
        }))  # fmt: skip
    return 0


def main(usage: str) -> int:  # noqa: PLR0911 - one a verb
    """Do as the command line says; return the exit code."""
    args = sys.argv[1:]
    verb = args.pop(0) if args else ""
    if verb == "list" and not args:
        return listing()
    if verb not in ("start", "follow", "cancel") or not args:
        return fail(usage)
    name = args.pop(0)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return fail(f"{name!r} is no name for a job")
    job = f"{JOBS}/{name}"
    if verb == "cancel" and not args:
        return cancel(job)
    if verb == "follow" and args in ([], ["--from-start"]):
        return follow(job, from_start=bool(args))
    if verb == "start" and "--" in args:
        split = args.index("--")
        options, command = args[:split], args[split + 1 :]
        pairs = list(zip(options[::2], options[1::2], strict=False))
        user = [value for key, value in pairs if key == "--user"]
        extra = [value for key, value in pairs if key == "--env"]
        if command and len(user) == 1 and 2 * (1 + len(extra)) == len(options):
            return start(job, user[0], command, extra)
    return fail(usage)
