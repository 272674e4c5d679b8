"""The logs of services in nodes: the last lines, and what comes, of many nodes at once.

A service's log is a file on its node's volume, so that it can be read after the node has stopped
or failed. A node that never got so far has only what its container printed.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from epic_runner import docker_api, docker_exec
from epic_runner.cluster import Node
from epic_runner.deadline import ANSWER_SECONDS, within
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound
from epic_runner.everywhere import ask_all
from epic_runner.hosts import Host
from epic_runner.processes import join
from epic_runner.store import ClusterRecord

FOLDER = "/data/log"
# The name under which the output of a container itself is shown.
CONTAINER = "container"
# Logs are larger than other answers.
READING_SECONDS = 20.0
# How many logs of a host are read at once.
AT_ONCE = 8

# Follows a file across its rotation, until our side hangs up: an exec outlives its reader.
_FOLLOW = 'tail -n "$1" -F "$2" 2>/dev/null & cat >/dev/null; kill $!'


@dataclass(frozen=True)
class Source:
    """The log of one service on one node."""

    node: Node
    service: str

    @property
    def path(self) -> str:
        """The log's newest file; older ones are beside it."""
        return f"{FOLDER}/{self.service}/current"


@dataclass(frozen=True)
class Tail:
    """The last lines of a log; `problem` says why there are none, if they could not be read.

    `is_silent` says that it was the host, which did not answer.
    """

    source: Source
    lines: tuple[str, ...]
    problem: str = ""
    is_silent: bool = False


def sources(
    cluster: ClusterRecord, node: Node | None = None, service: str | None = None
) -> list[Source]:
    """Return the logs of a cluster, or of one node, or of one service.

    Raises:
        InputError: No chosen node runs the service.
    """
    nodes = [node] if node else list(cluster.nodes)
    found = [Source(one, name) for one in nodes for name in cluster.spec.role(one.role).services]
    chosen = [source for source in found if service in (None, source.service)]
    if not chosen and found:
        names = ", ".join(dict.fromkeys(source.service for source in found))
        where = node.name if node else cluster.name
        raise InputError(f"{where} runs no service {service}; it runs {names}.")
    return chosen


def tails(hosts: Mapping[str, Host], wanted: Iterable[Source], lines: int) -> list[Tail]:
    """Read the last lines of logs, all at once.

    Of a node without any log, what its container printed takes their place.
    """
    wanted = list(wanted)
    by_host: dict[str, list[Source]] = {}
    for source in wanted:
        by_host.setdefault(source.node.host, []).append(source)
    answers, problems = ask_all(
        (hosts[name] for name in by_host),
        lambda host: _host_tails(host, by_host[host.name], lines),
        READING_SECONDS,
    )
    read = {name: found for of_host in answers.values() for name, found in of_host.items()}
    nodes = {source.node.container: source.node for source in wanted}
    return [
        tail
        for name, node in nodes.items()
        for tail in read.get(name)
        or [Tail(Source(node, CONTAINER), (), problems[node.host], is_silent=True)]
    ]


def unread(problems: Iterable[str]) -> DockerUnavailable:
    """Return the error that no log could be read, since hosts do not answer, and why not."""
    told = "; ".join(dict.fromkeys(problems))
    return DockerUnavailable(told, "epic-run doctor tells what is wrong with it.")


def _host_tails(host: Host, wanted: list[Source], lines: int) -> dict[str, list[Tail]]:
    """Read logs of a host's nodes, by container.

    Whether the host answers at all is asked once, not for each of them.

    Raises:
        DockerUnavailable: It does not.
    """
    with within(ANSWER_SECONDS):
        docker_api.ping(host)
    # What the threads ask has the deadline of this one.
    contexts = [(source, copy_context()) for source in wanted]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tails_there = pool.map(lambda item: item[1].run(_tail, host, item[0], lines), contexts)
        found: dict[str, list[Tail]] = {}
        for tail in tails_there:
            found.setdefault(tail.source.node.container, []).append(tail)
    return {
        name: of_node
        if any(tail.lines for tail in of_node)
        else [_container_tail(host, of_node[0].source.node, lines)]
        for name, of_node in found.items()
    }


def _tail(host: Host, source: Source, lines: int) -> Tail:
    container = source.node.container
    try:
        data = docker_api.read_file(host, container, source.path) or b""
        if data.count(b"\n") < lines:
            data = _older(host, source) + data
    except EpicError as problem:
        return Tail(source, (), problem.message)
    return Tail(source, last_lines(data, lines))


def _older(host: Host, source: Source) -> bytes:
    """Return the files that the log's rotation left, the oldest first; their names are times."""
    data = docker_api.read_archive(host, source.node.container, f"{FOLDER}/{source.service}")
    if data is None:
        return b""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = sorted(
            (member for member in tar if member.name.rpartition("/")[2].startswith("@")),
            key=lambda member: member.name,
        )
        files = [tar.extractfile(member) for member in members]
        return b"".join(file.read() for file in files if file)


def _container_tail(host: Host, node: Node, lines: int) -> Tail:
    source = Source(node, CONTAINER)
    try:
        data = docker_api.container_output(host, node.container, lines)
    except NotFound:
        return Tail(source, (), "there is no container")
    except EpicError as problem:
        return Tail(source, (), problem.message)
    return Tail(source, last_lines(data, lines))


def last_lines(data: bytes, lines: int) -> tuple[str, ...]:
    """Return the last lines of a text; what is no UTF-8 is shown as replaced."""
    if lines <= 0:
        return ()
    return tuple(data.decode("utf-8", "replace").splitlines()[-lines:])


def follow(
    hosts: Mapping[str, Host],
    wanted: Iterable[Source],
    lines: int,
    show: Callable[[Source, str], None],
    miss: Callable[[Source, str], None],
) -> None:
    """Show the last lines of logs and then what is added to them, whole lines, until interrupted.

    Returns when all of the nodes have stopped.

    Args:
        hosts: The hosts by name.
        wanted: Which logs.
        lines: How many last lines to begin with.
        show: Called with each line; never twice at once, nor beside `miss`.
        miss: Called with why a log cannot be read, or no further.

    Raises:
        DockerUnavailable: No log could be read, since no host with one answers.
    """
    guard = threading.Lock()
    followed = [_Lines(source, show, miss, guard) for source in wanted]
    threads = []
    for one in followed:
        arguments = (hosts[one.source.node.host], lines, one)
        threads.append(threading.Thread(target=_follow_one, args=arguments, daemon=True))
        threads[-1].start()
    for thread in threads:
        join(thread)
    if followed and all(one.silence for one in followed):
        raise unread(one.silence for one in followed)


def _follow_one(host: Host, lines: int, into: _Lines) -> None:
    source = into.source
    command = ["bash", "-c", _FOLLOW, "bash", str(lines), source.path]
    try:
        docker_exec.stream(host, source.node.container, command, into.write, hold=True)
        into.end()
    except EpicError as problem:
        into.fail(problem)


class _Lines:
    """Makes lines of pieces, and shows them one at a time.

    `silence` is why the host did not answer, if it never did.
    """

    def __init__(
        self,
        source: Source,
        show: Callable[[Source, str], None],
        miss: Callable[[Source, str], None],
        guard: threading.Lock,
    ) -> None:
        self.source = source
        self.silence = ""
        self._show = show
        self._miss = miss
        self._guard = guard
        self._rest = b""
        self._has_come = False

    def write(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        del is_error
        self._has_come = True
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._put(line)

    def end(self) -> None:
        if self._rest:
            self._put(self._rest)

    def fail(self, problem: EpicError) -> None:
        self.end()
        if isinstance(problem, DockerUnavailable) and not self._has_come:
            self.silence = problem.message
        with self._guard:
            self._miss(self.source, problem.message)

    def _put(self, line: bytes) -> None:
        with self._guard:
            self._show(self.source, line.decode("utf-8", "replace"))
