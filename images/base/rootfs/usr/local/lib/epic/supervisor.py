# A program of the image, of which every job has one: it imports next to nothing.
# ruff: noqa: INP001, PTH104, PTH112, PTH123, S606
"""Supervises one job, and is the only one that knows how it ended.

It is a process of its own, forked by `epic-job start` and beyond that one's life. The job is a
session and a process group of its own; its pid is in FOLDER/pid. Its output goes through pipes, so
that a program that prints without end does not fill the disk: so many bytes of each stream are
kept, the rest is read and dropped. Who holds the pipes when the job is over, a daemon that it left,
is not waited for, and goes on to be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import select
import signal
import time

CHUNK = 1 << 16
STREAMS = ("stdout", "stderr")
DRAIN_SECONDS = 1.0  # how long the output of a job that is over is waited for
NOT_RUNNABLE, NOT_FOUND = 126, 127  # exit codes, as shells have them
NOT_KEPT = 74  # and of input and output that failed, as sysexits.h has it


class Kept:
    """One stream's file, which takes so much and no more.

    Attributes:
        lost: Whether it took less than that, for want of room.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.lost = False
        self._path = path
        self._left = limit
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def take(self, data: bytes) -> None:
        """Write what still goes into the file; what does not is dropped, and that is noted."""
        try:
            kept = data[: self._left]
            while kept:
                count = os.write(self._file, kept)
                self._left -= count
                kept, data = kept[count:], data[count:]
        except OSError:  # the disk is full
            self._left = 0
            self.lost = True
        if data and not self._left:
            self._note()

    def _note(self) -> None:
        with contextlib.suppress(OSError):
            os.close(os.open(f"{self._path}.cut", os.O_CREAT | os.O_WRONLY, 0o640))


def begin(job: str, limit: int, name: str, command: list[str], env: dict[str, str]) -> int:
    """Have a new process supervise a command; return its pid.

    Args:
        job: The job's folder, with the files of its streams.
        limit: How many bytes of each stream are kept.
        name: The user that it is run as, where this one is root.
        command: The command.
        env: Its environment.
    """
    supervisor = os.fork()
    if supervisor:
        return supervisor
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        hide(f"epic-job: {job}")
        supervise(job, limit, name, command, env)
        os._exit(0)
    finally:
        # Who started it sees that there is no job.
        os._exit(1)


def hide(title: str) -> None:
    """Have others see a title, and neither the arguments nor the environment of this process.

    They are those of `epic-job start`, the job's variables and another job's mark among them, and
    would be there for as long as the job runs, which they are where a kernel lets no process write
    to its own memory so. Where they are in memory is told by proc(5), fields 48 to 51.
    """
    with contextlib.suppress(OSError):
        with open("/proc/self/stat") as stat:
            places = [int(word) for word in stat.read().rpartition(")")[2].split()[45:49]]
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            for start, end, text in (places[0], places[1], title), (places[2], places[3], ""):
                memory.seek(start)
                memory.write(text.encode()[: end - start - 1].ljust(end - start, b"\0"))


def supervise(job: str, limit: int, name: str, command: list[str], env: dict[str, str]) -> None:
    """Run a command to its end and record its exit code.

    128 and the signal that killed it; `NOT_KEPT` in place of 0 where output was lost.
    """
    # Made before anything is printed: there will be room for the result on a full disk, too.
    result = os.open(f"{job}/.rc", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(result, b"    ")
    asleep = woken_by_children()
    pipes = [os.pipe() for _ in STREAMS]
    child = os.fork()
    if child == 0:
        become(job, name, [write for _, write in pipes], command, env)
    files = [Kept(f"{job}/{stream}", limit) for stream in STREAMS]
    streams = {}
    for (read, write), file in zip(pipes, files, strict=True):
        os.close(write)
        streams[read] = file
    code, end, told = None, 0.0, False
    while streams or not told:
        pause = None if code is None or told else max(end - time.monotonic(), 0)
        ready = select.select([*streams, asleep], [], [], pause)[0]
        if asleep in ready:
            os.read(asleep, CHUNK)
        pass_on(streams, ready)
        if code is None:
            code, end = exit_code(child), time.monotonic() + DRAIN_SECONDS
        if code is not None and not told and (not streams or time.monotonic() >= end):
            if any(file.lost for file in files):
                code = code or NOT_KEPT
            os.pwrite(result, b"%3d\n" % code, 0)
            os.rename(f"{job}/.rc", f"{job}/rc")
            told = True


def woken_by_children() -> int:
    """Return a file that can be read when a child has ended."""
    asleep, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    return asleep


def pass_on(streams: dict[int, Kept], ready: list[int]) -> None:
    """Take what there is to read from pipes; forget those that have ended."""
    for source in streams.keys() & set(ready):
        data = os.read(source, CHUNK)
        if data:
            streams[source].take(data)
        else:
            os.close(source)
            del streams[source]


def exit_code(child: int) -> int | None:
    """Return a child's exit code, 128 and the signal that killed it; None while it runs."""
    ended, status = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code) if ended else None


def become(
    job: str, name: str, outputs: list[int], command: list[str], env: dict[str, str]
) -> None:
    """Become the job: in this process, which is a child of the supervisor."""
    try:
        os.setsid()
        user = pwd.getpwnam(name)
        with open(f"{job}/.pid", "w") as file:
            file.write(f"{os.getpid()}\n")
        os.rename(f"{job}/.pid", f"{job}/pid")
        for target, write in enumerate(outputs, 1):
            os.dup2(write, target)
        home = env["HOME"]
        os.chdir(home if os.path.isdir(home) else "/")
        if os.geteuid() == 0 and user.pw_uid:
            for write in outputs:
                # Else the job could not open its own /dev/stdout.
                os.fchown(write, user.pw_uid, user.pw_gid)
            os.initgroups(name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        run(command, env)
    except OSError as problem:
        code = NOT_FOUND if problem.errno == errno.ENOENT else NOT_RUNNABLE
        os.write(2, f"epic-job: cannot run {command[0]}: {problem.strerror}\n".encode())
        os._exit(code)
    finally:
        os._exit(NOT_RUNNABLE)


def run(command: list[str], env: dict[str, str]) -> None:
    """Become a command; a script without a first line that names its interpreter is bash's."""
    try:
        os.execvpe(command[0], command, env)
    except OSError as problem:
        if problem.errno != errno.ENOEXEC:
            raise
        os.execvpe("bash", ["bash", *command], env)
