"""Following a script in its node: what it prints, whole and as it comes, and how it ended.

A script that `epic-job` started lives in its node and keeps what it printed there. A follower reads
that from any place on, so a connection that breaks off is made again where it stopped, and it ends
with a line that counts what was printed, so nothing is lost unseen.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epic_runner import docker_api, docker_exec, processes
from epic_runner.cluster import Node
from epic_runner.errors import DockerUnavailable, EpicError, NotFound
from epic_runner.hosts import Host

# How long a follower tries to find its script again after the connection to Docker broke off.
RECONNECT_SECONDS = 60.0
RECONNECT_PAUSE_SECONDS = 0.5
# After how long people are told of it.
MOMENT_SECONDS = 5.0
# How often a follower that ended without a word is started again.
MOST_TRIES = 3

# Waits for a script whose start is under way, without forking, unless our side hangs up.
_FOLLOW = """
until [ -e "/data/jobs/$1/pid" ]; do read -rt 0.03; (($? > 128)) || exit 1; done
exec epic-job follow "$1" --trailer --from "$2" "$3"
"""

# The last line of a follower on stderr, behind a null character: state, exit code, bytes of stdout
# and stderr.
_TRAILER = re.compile(rb"\0([a-z]+) (\d+) (\d+) (\d+)\n\Z")
# What may be the beginning of one, at the end of what has come so far.
_BEGUN = re.compile(rb"\0(?:[a-z]+(?: \d*){0,3}\n?)?\Z")


@dataclass(frozen=True)
class Ended:
    """How a script ended.

    Attributes:
        state: `done` with an exit code, `running` where it goes on, or `vanished` where it left no
            result: its node was stopped, say.
        rc: Its exit code; None without one.
    """

    state: str
    rc: int | None = None


class Seen:
    """Passes a script's output on, and counts it; takes the follower's last line off.

    Args:
        write: Called with each piece and whether it came on stderr.
        stdout: How many bytes of stdout were passed on before.
        stderr: How many of stderr.
    """

    def __init__(self, write: docker_exec.Write, stdout: int = 0, stderr: int = 0) -> None:
        self._write = write
        self._counts = {False: stdout, True: stderr}
        self._held = b""

    @property
    def counts(self) -> tuple[int, int]:
        """How many bytes of stdout and stderr were passed on."""
        return self._counts[False], self._counts[True]

    def take(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        """Pass on a piece; of stderr not yet what may be the follower's last line."""
        if not is_error:
            self._pass(data, is_error=False)
            return
        data = self._held + data
        begun = _TRAILER.search(data) or _BEGUN.search(data)
        cut = begun.start() if begun else len(data)
        self._held = data[cut:]
        self._pass(data[:cut], is_error=True)

    def ended(self) -> Ended | None:
        """Return what the last line told; None where there was none, or something is missing."""
        found = _TRAILER.fullmatch(self._held)
        if not found:
            # What looked like one was the script's own.
            self._pass(self._held, is_error=True)
            self._held = b""
            return None
        self._held = b""
        state, rc, *sizes = found.groups()
        if tuple(map(int, sizes)) != self.counts:
            return None
        return Ended(state.decode(), int(rc) if state == b"done" else None)

    def _pass(self, data: bytes, *, is_error: bool) -> None:
        if data:
            self._counts[is_error] += len(data)
            self._write(data, is_error)


class Follower(threading.Thread):
    """Follows one script to its end, in a thread of its own.

    Args:
        reach: Finds the way to its node's host; called again when one broke off, since ssh may have
            ended.
        container: The node's container.
        key: The script's id in its node; it may still be starting.
        seen: Takes what it prints.
        over: Called at the end, in this thread.
        patience_seconds: For how long it tries to find the script again when the connection to
            Docker broke off.
        silent: Called, in this thread, with what is wrong when that takes longer than a moment.
    """

    def __init__(
        self,
        reach: Callable[[], Host],
        container: str,
        key: str,
        seen: Seen,
        over: Callable[[], None] = lambda: None,
        *,
        patience_seconds: float = RECONNECT_SECONDS,
        silent: Callable[[str], None] = lambda _why: None,
    ) -> None:
        super().__init__(daemon=True)
        self._over = over
        self._patience_seconds = patience_seconds
        self._silent = silent
        self._reach, self._container, self._key, self._seen = reach, container, key, seen
        self._guard = threading.Lock()
        self._pouring: docker_exec.Pouring | None = None
        self._is_given_up = False
        self._ended = Ended("vanished")
        self._problem: Exception | None = None

    def run(self) -> None:
        """Follow to the end."""
        try:
            self._ended = self._follow()
        except Exception as problem:  # noqa: BLE001 - raised again by `result`
            self._problem = problem
        self._over()

    def give_up(self) -> None:
        """Stop following; the script is left as it is, and its end stays unknown."""
        with self._guard:
            self._is_given_up = True
            if self._pouring:
                self._pouring.stop()

    def result(self) -> Ended:
        """Wait for the end; return how it was, or raise what following raised.

        Raises:
            DockerUnavailable: Docker stayed away.
        """
        processes.join(self)
        if self._problem is not None:
            raise self._problem
        return self._ended

    def _follow(self) -> Ended:
        silent_since, tries, is_told = math.inf, 0, False
        while not self._is_given_up:
            before = self._seen.counts
            try:
                self._pour()
                ended = self._seen.ended()
            except DockerUnavailable as problem:
                self._seen.ended()
                now = time.monotonic()
                if self._seen.counts != before or silent_since == math.inf:
                    silent_since, is_told = now, False
                if not is_told and now - silent_since > MOMENT_SECONDS:
                    is_told = True
                    self._silent(problem.message)
                if now - silent_since > self._patience_seconds:
                    raise
                time.sleep(RECONNECT_PAUSE_SECONDS)
                continue
            except EpicError:
                break  # there is no container any more, or it has stopped
            if ended:
                return ended
            tries = 0 if self._seen.counts != before else tries + 1
            if tries == MOST_TRIES:
                break
        return Ended("running") if self._is_given_up else self._left()

    def _left(self) -> Ended:
        """Return the result that a script has left in its node, also in one that has stopped."""
        rc = result(self._reach(), self._container, self._key)
        return Ended("vanished") if rc is None else Ended("done", rc)

    def _pour(self) -> None:
        command = ["bash", "-c", _FOLLOW, "bash", self._key, *map(str, self._seen.counts)]
        pouring = docker_exec.Pouring(self._reach(), self._container, command)
        with self._guard:
            self._pouring = pouring
            if self._is_given_up:
                pouring.stop()
        pouring.pour(self._seen.take)


def result(host: Host, container: str, key: str) -> int | None:
    """Return the exit code that a script left in its node, also in one that has stopped."""
    text = b""
    with contextlib.suppress(EpicError):
        text = docker_api.read_file(host, container, f"/data/jobs/{key}/rc") or b""
    return int(text) if text.strip().isdigit() else None


def read_output(
    reach: Callable[[], Host], node: Node, key: str, write: docker_exec.Write, *, follow: bool
) -> None:
    """Pass on what a script printed in its node; with `follow`, until it ends.

    Args:
        reach: Finds the way to the node's host; called again when one broke off.
        node: The node.
        key: The script's id in its node.
        write: Takes what it printed.
        follow: Whether to go on until it ends.

    Raises:
        NotFound: The node knows nothing of it.
        EpicError: The node does not run.
    """
    host = reach()
    told = show(host, node.container, key)
    if told is None:
        raise NotFound(f"{node.name} knows nothing of {key}.")
    if follow or told["state"] != "running":
        follower = Follower(reach, node.container, key, Seen(write))
        follower.start()
        follower.result()
        return
    script = 'cat "$1/stderr" >&2; exec cat "$1/stdout"'
    command = ["sh", "-c", script, "sh", f"/data/jobs/{key}"]
    docker_exec.stream(host, node.container, command, write)


def show(host: Host, container: str, key: str) -> Mapping[str, Any] | None:
    """Return what a node knows of a script (`epic-job show`); None where it knows nothing.

    Raises:
        EpicError: The node does not run.
        DockerUnavailable: Docker does not answer.
    """
    try:
        code, text = docker_exec.output_of(host, container, ["epic-job", "show", key])
    except NotFound:
        return None
    return dict(json.loads(text)) if code == 0 else None
