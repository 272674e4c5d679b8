"""Running an action: started on all nodes, followed node by node, recorded as nodes end.

A node runs its part alone once it has begun, and keeps what was printed and how it ended. So who
drives an action may die: `settle` asks the nodes later.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import functools
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from epic_runner import docker_exec, following, ssh, tracking
from epic_runner.actions import decide, starting
from epic_runner.actions.request import OUTPUT_BYTES, ActionRequest, check, chosen, refusal
from epic_runner.cluster import STOP, Node
from epic_runner.errors import (
    ClusterBusy,
    DockerUnavailable,
    EpicError,
    InputError,
    NotFound,
)
from epic_runner.everywhere import ask_all
from epic_runner.following import Follower, Seen
from epic_runner.hosts import Host
from epic_runner.jobs import refuse_stopped
from epic_runner.lifecycle import Context
from epic_runner.operations import account, new_id, operation_directory, settled
from epic_runner.processes import controller, drives, here, host_of, is_ours, join
from epic_runner.store import ActionRecord, ClusterRecord, NodeOutcome, Store
from epic_runner.store.store import Transaction

# How many nodes are asked at once.
AT_ONCE = 32
NOT_REACHED = "not reached"
CANCELLED_BEFORE = f"{NOT_REACHED}: it was cancelled"
# For how long the start on a node passes on what is printed: what ends by then is not followed.
FOLLOW_MILLISECONDS = 400
# How long nodes' last output is waited for when people have ended an action.
LAST_WORDS_SECONDS = 5.0
# How often a node is asked for an action whose turn there is still to come.
TURN_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Audience:
    """Who watches an action.

    Attributes:
        piece: Called with a node's name, what it printed, and whether that was on stderr.
        ended: Called with a node's name and what it has made of the action.
    """

    piece: Callable[[str, bytes, bool], None] = lambda _node, _data, _is_error: None
    ended: Callable[[str, NodeOutcome], None] = lambda _node, _outcome: None


NOBODY = Audience()


def begin(
    context: Context,
    name: str,
    request: ActionRequest,
    *,
    tenant: str | None = None,
    user: str | None = None,
    roles: Sequence[str] = (),
    nodes: Sequence[str] = (),
) -> ActionRecord:
    """Record an action that is allowed, for `drive` to run.

    One that is not allowed is recorded as well: people want to know who tried.

    Args:
        context: The store and the hosts.
        name: The cluster.
        request: What to run.
        tenant: The cluster's tenant, where the name needs it.
        user: As which member; the tenant's first administrator by default.
        roles: Only on nodes of these node roles.
        nodes: Only on these nodes.

    Raises:
        InputError: The script, the user or the cluster's state does not allow it.
    """
    check(request)
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        owner = transaction.tenant(cluster.tenant)
    refuse_stopped(cluster)
    acting = user or owner.default_user() or ""
    on = chosen(cluster, roles, nodes)
    reason = refusal(owner, acting, sudo=request.sudo, asker=context.asker)
    record = new_record(cluster, request, acting, on, reason, asker=context.asker)
    with context.store.transaction() as transaction:
        transaction.add_action(record)
    if reason:
        members = ", ".join(member["user"] for member in owner.members) or "none"
        hint = f"Its members are {members}."
        if request.sudo and acting in [member["user"] for member in owner.members]:
            hint = "Members with `sudo: true` in the Tenant document may."
        raise InputError(reason, hint)
    return record


def new_record(
    cluster: ClusterRecord,
    request: ActionRequest,
    user: str,
    on: Iterable[Node],
    refused: str = "",
    *,
    asker: str | None = None,
) -> ActionRecord:
    """Return the record of an action that begins now, driven by this process, or is refused."""
    now = time.time()
    pid, since = controller().split(":")[-2:]
    return ActionRecord(
        id=new_id(now),
        tenant=cluster.tenant,
        cluster=cluster.name,
        user=user,
        name=request.name,
        digest=request.digest,
        script=request.script,
        options=request.options(),
        nodes={node.short_name: NodeOutcome() for node in on},
        state="refused" if refused else "running",
        reason=refused,
        controller=here(),
        pid=int(pid),
        pid_started=since,
        started_at=now,
        ended_at=now if refused else None,
        asked_by="" if asker == user else asker or account(),
    )


def drive(context: Context, action: ActionRecord, audience: Audience = NOBODY) -> ActionRecord:
    """Run an action to its end, on so many nodes at a time as it says; return how it ended.

    Args:
        context: The store and the hosts.
        action: The action, as it was recorded.
        audience: Who watches; told in another thread.

    Raises:
        KeyboardInterrupt: People ended it; so have its processes by then on all nodes that can be
            reached, and the others are recorded as unknown.
    """
    driver = _Driver(context, action, audience)
    return driver.to_its_end(driver.run)


def rejoin(context: Context, action: ActionRecord, audience: Audience = NOBODY) -> ActionRecord:
    """Follow an action whose driver is gone to its end on all nodes; return how it ended.

    Raises:
        ClusterBusy: Another process drives it.
        KeyboardInterrupt: As of `drive`.
    """
    if is_driven(action):
        raise ClusterBusy(
            f"The action {action.id} runs on {action.cluster} (process {action.pid}).",
            f"Wait until it ends, or epic-run action cancel {action.id}.",
        )
    found = settle(context, action)
    if found.is_over:
        return found
    driver = _Driver(context, adopt(context, found), audience)
    return driver.to_its_end(driver.follow_on)


class _Driver:
    """One action under way."""

    def __init__(self, context: Context, action: ActionRecord, audience: Audience) -> None:
        self._context = context
        self._action = action
        self._request = ActionRequest.of(action.name, action.script, action.options)
        self._audience = audience
        with context.store.read() as transaction:
            self._cluster = transaction.find_cluster(action.cluster, action.tenant)
            self._tenant = transaction.tenant(action.tenant)
        self._nodes = {node.short_name: node for node in self._cluster.staying()}
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._followers: dict[str, Follower] = {}
        self._guards: dict[str, threading.Lock] = {}
        self._began: dict[str, float] = {}
        self._seen: dict[str, Seen] = {}
        self._outcomes = dict(action.nodes)
        self._is_cancelled = False

    def to_its_end(self, way: Callable[[], ActionRecord]) -> ActionRecord:
        """Go a way to the action's end; end it on all nodes if people end that.

        The way is gone in a thread of its own. So Ctrl-C meets one that only waits, and never what
        is half recorded or half begun.
        """
        outcome: Future[ActionRecord] = Future()

        def go() -> None:
            try:
                outcome.set_result(way())
            except BaseException as problem:  # noqa: BLE001 - raised again below
                outcome.set_exception(problem)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(go,), daemon=True)
        thread.start()
        try:
            join(thread)
        except KeyboardInterrupt:
            with contextlib.suppress(InputError):  # it is over by now
                cancel(self._context, self._action)
            # Nodes' last words are on their way; a host that is silent has none.
            thread.join(LAST_WORDS_SECONDS)
            raise
        return outcome.result()

    def follow_on(self) -> ActionRecord:
        """Follow the nodes on which it runs already; return the action as it ended."""
        for name, outcome in self._outcomes.items():
            if outcome.state == "running":
                self._began[name] = self._action.started_at
                self._seen[name] = Seen(self._writer(name))
                self._follow(self._nodes[name], self._seen[name])
        self._collect()
        return self._finish()

    def run(self) -> ActionRecord:
        """Reach the nodes in their batches; return the action as it ended."""
        waiting = decide.batches(list(self._action.nodes), self._request.serial)
        for batch in waiting:
            self._run_batch(batch)
            if self._is_cancelled:
                self._settle_rest(CANCELLED_BEFORE)
                break
            bad = decide.failed_nodes(self._outcomes)
            if bad and self._request.on_failure == STOP:
                reason = f"{NOT_REACHED}: it failed on {decide.first_words(bad)}"
                self._settle_rest(reason)
                break
        return self._finish()

    def _end_nodes(self, names: Sequence[str]) -> None:
        """End what runs on nodes; those that cannot be asked are unknown, and followed no more."""
        self._is_cancelled = True
        on = [self._nodes[name] for name in names]
        problems = end_on_nodes(self._context.hosts, self._action, on)
        for name in problems:
            if follower := self._followers.pop(name, None):
                follower.give_up()
        now = time.time()
        self._end({n: NodeOutcome("unknown", None, why, now) for n, why in problems.items()})

    # -- a batch ---------------------------------------------------------------------------

    def _run_batch(self, batch: list[str]) -> None:
        here = [self._nodes[name] for name in batch if name in self._nodes]
        for name in batch:
            if name not in self._nodes:
                gone = NodeOutcome("unknown", None, "it has left the cluster", time.time())
                self._end({name: gone})
        if not here or not self._claim(here):
            return
        now = time.time()
        self._began |= {node.short_name: now for node in here}
        silent = starting.start(self._context.hosts, here, self._wanted(), self._started)
        now = time.time()
        self._end({n: NodeOutcome("unknown", None, why, now) for n, why in silent.items()})
        if self._was_cancelled():
            # Who cancelled it may have come to these nodes before the script did.
            self._end_nodes([name for name in self._followers if name in batch])
        self._collect()

    def _claim(self, nodes: Iterable[Node]) -> bool:
        """Record that nodes begin, unless somebody has cancelled the action; return whether so."""
        begun = {node.short_name: NodeOutcome("running") for node in nodes}

        def change(transaction: Transaction) -> bool:
            if transaction.action(self._action.id).state != "running":
                return False
            transaction.set_action(self._action.id, begun)
            return True

        if settled(self._context.store, change, lambda _step: None):
            self._outcomes |= begun
        else:
            self._is_cancelled = True
        return not self._is_cancelled

    def _was_cancelled(self) -> bool:
        with self._context.store.read() as transaction:
            return transaction.action(self._action.id).state != "running"

    def _wanted(self) -> dict[str, Any]:
        """Return the action as the filter takes it that makes commands for nodes of it."""
        request, user = self._request, self._action.user
        return {
            "id": self._action.id,
            "user": user,
            "uid": self._tenant.uids[user],
            "name": request.file_name,
            "script": base64.b64encode(request.script).decode("ascii"),
            "arguments": request.arguments,
            "environment": environment(self._cluster, request),
            "sudo": request.sudo,
            "timeout_seconds": request.timeout_seconds,
            "limit_bytes": 0,
            "follow_milliseconds": FOLLOW_MILLISECONDS,
            "wait": False,
        }

    def _started(self, starts: Mapping[str, starting.Start]) -> None:
        """Take what nodes printed at once, and follow those that go on."""
        ends = {}
        for name, told in starts.items():
            if told.rc:
                ends[name] = decide.not_started(told.rc, told.stderr, now=time.time())
                continue
            seen = self._seen[name] = Seen(self._writer(name))
            seen.take(told.stdout, is_error=False)
            seen.take(told.stderr, is_error=True)
            ended = seen.ended()
            if ended and ended.state != "running":
                ends[name] = self._outcome(name, ended)
            else:
                self._follow(self._nodes[name], seen)
        self._end(ends)

    def _writer(self, name: str) -> docker_exec.Write:
        return lambda data, is_error: self._audience.piece(name, data, is_error)

    def _follow(self, node: Node, seen: Seen) -> None:
        name = node.short_name
        follower = Follower(
            lambda: self._way(node.host),
            node.container,
            self._action.id,
            seen,
            lambda: self._over.put(name),
        )
        self._followers[name] = follower
        follower.start()

    def _way(self, host: str) -> Host:
        # One at a time for a host: who comes second finds the way that the first one has made.
        with self._guards.setdefault(host, threading.Lock()):
            return ssh.nearby(self._context.hosts[host])

    def _collect(self) -> None:
        """Wait for the nodes that are followed, and record each that ended."""
        while self._followers:
            names = [self._over.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    names.append(self._over.get_nowait())
            ends = {}
            for name in names:
                if name not in self._followers:
                    continue
                try:
                    ends[name] = self._outcome(name, self._followers.pop(name).result())
                except DockerUnavailable as problem:
                    ends[name] = NodeOutcome("unknown", None, problem.message, time.time())
            self._end(ends)

    def _outcome(self, name: str, ended: following.Ended) -> NodeOutcome:
        now = time.time()
        if ended.rc:
            self._is_cancelled = self._is_cancelled or self._was_cancelled()
        found = decide.outcome(
            ended,
            seconds=now - self._began.get(name, now),
            timeout_seconds=self._request.timeout_seconds,
            cancelled=self._is_cancelled,
            now=now,
        )
        return replace(found, cut=decide.cut(self._seen[name].counts, OUTPUT_BYTES))

    # -- the record ------------------------------------------------------------------------

    def _end(self, ends: Mapping[str, NodeOutcome]) -> None:
        self._set(ends)
        for name, ended in ends.items():
            self._audience.ended(name, ended)

    def _settle_rest(self, reason: str) -> None:
        rest = [name for name, node in self._outcomes.items() if not node.is_over]
        self._set({name: NodeOutcome("skipped", None, reason, time.time()) for name in rest})

    def _set(self, outcomes: Mapping[str, NodeOutcome]) -> None:
        if outcomes:
            self._outcomes |= outcomes
            _write(self._context.store, self._action.id, outcomes)

    def _finish(self) -> ActionRecord:
        shutil.rmtree(operation_directory(self._action.id), ignore_errors=True)
        return _close(self._context.store, self._action.id)


def environment(cluster: ClusterRecord, request: ActionRequest) -> dict[str, str]:
    """Return what an action's script learns of its cluster, and what people added."""
    spec = cluster.spec
    described = {
        "tenant": cluster.tenant,
        "name": cluster.name,
        "owner": cluster.owner,
        "app": f"{spec.app}@{spec.app_version}",
        "nodes": [{"name": node.name, "role": node.role} for node in cluster.staying()],
        "node_roles": {role.name: {"services": role.services} for role in spec.roles},
    }
    return {**starting.surroundings(described), **request.environment}


# -- afterwards ------------------------------------------------------------------------------


def cancel(context: Context, action: ActionRecord) -> ActionRecord:
    """End an action on all nodes where it runs or may run, and keep it from the others.

    Raises:
        InputError: It is over.
    """
    doubtful = {"running", "unknown"}
    if action.is_over and not any(node.state == "unknown" for node in action.nodes.values()):
        raise InputError(f"The action {action.id} is over: {action.state}.")
    if action.is_play:
        raise InputError(
            f"The action {action.id} is a play.",
            f"Ctrl-C ends it where it runs: process {action.pid} on {host_of(action.controller)}.",
        )

    def mark(transaction: Transaction) -> ActionRecord:
        # Who drives it looks at this before a node begins and behind that: either that one ends
        # it there, or it has begun by now and is ended below.
        now = transaction.action(action.id)
        if not now.is_over:
            transaction.set_action(action.id, state="cancelling")
        waiting = [name for name, node in now.nodes.items() if node.state == "waiting"]
        skipped = NodeOutcome("skipped", None, CANCELLED_BEFORE, time.time())
        transaction.set_action(action.id, dict.fromkeys(waiting, skipped))
        return transaction.action(action.id)

    marked = settled(context.store, mark, lambda _step: None)
    nodes = _nodes_of(context.store, action)
    ending = [nodes[n] for n, node in marked.nodes.items() if node.state in doubtful and n in nodes]
    problems = end_on_nodes(context.hosts, action, ending)
    ended = {node.short_name: NodeOutcome("cancelled", None, "", time.time()) for node in ending}
    ended |= {
        name: NodeOutcome("unknown", None, why, time.time()) for name, why in problems.items()
    }
    _write(context.store, action.id, ended)
    return _close(context.store, action.id)


def end_on_nodes(
    hosts: Mapping[str, Host], action: ActionRecord, nodes: Sequence[Node]
) -> dict[str, str]:
    """End an action's processes on nodes; return why it could not be done, by node.

    A node that does not know it has nothing to end: it was made anew, or has not begun.
    """

    def end(node: Node) -> tuple[str, str]:
        try:
            tracking.end_in_node(ssh.nearby(hosts[node.host]), node, action.id)
        except EpicError as problem:
            return node.short_name, problem.message
        return node.short_name, ""

    if not nodes:
        return {}
    with ThreadPoolExecutor(min(len(nodes), AT_ONCE)) as pool:
        return {name: why for name, why in pool.map(end, nodes) if why}


def settle(context: Context, action: ActionRecord, *, doubts: bool = False) -> ActionRecord:
    """Find out how an action goes on whose driver is gone; return it as it is now.

    Nodes that cannot be asked are `unknown` in what is returned, and are asked again next time.

    Args:
        context: The store and the hosts.
        action: The action.
        doubts: Whether nodes that were `unknown` before are asked as well.
    """
    asked = {"running", "unknown"} if doubts else {"running"}
    if action.state == "refused" or is_driven(action):
        return action
    if action.is_play:
        return _abandoned_play(context.store, action)
    nodes = _nodes_of(context.store, action)
    open_ = [n for n, node in action.nodes.items() if node.state in asked and n in nodes]
    by_host: dict[str, list[Node]] = {}
    for name in open_:
        by_host.setdefault(nodes[name].host, []).append(nodes[name])
    timeout = int(action.options["timeout_seconds"])
    found, silent = ask_all(
        (context.hosts[name] for name in by_host),
        lambda host: _ask_nodes(ssh.nearby(host), by_host[host.name], action.id, timeout),
    )
    outcomes = {name: ended for told in found.values() for name, ended in told.items() if ended}
    now = time.time()
    if is_ours(action.controller):
        lost = NodeOutcome("skipped", None, f"{NOT_REACHED}: who drove it is gone", now)
        outcomes |= {n: lost for n, node in action.nodes.items() if node.state == "waiting"}
    gone = NodeOutcome("unknown", None, "it has left the cluster", now)
    outcomes |= {
        n: gone for n, node in action.nodes.items() if node.state == "running" and n not in nodes
    }
    _write(context.store, action.id, outcomes)
    record = _close(context.store, action.id) if outcomes else action
    unknown = {
        node.short_name: NodeOutcome("unknown", None, silent[host])
        for host, members in by_host.items()
        if host in silent
        for node in members
    }
    return replace(record, nodes={**record.nodes, **unknown})


def _abandoned_play(store: Store, action: ActionRecord) -> ActionRecord:
    if action.is_over or not is_ours(action.controller):
        return action
    lost = NodeOutcome("unknown", None, "who ran the play is gone", time.time())
    _write(store, action.id, {n: lost for n, node in action.nodes.items() if not node.is_over})
    return _close(store, action.id)


def is_driven(action: ActionRecord) -> bool:
    """Whether the process of this machine that drives an action lives."""
    return not action.is_over and drives(action.controller, action.pid, action.pid_started)


def adopt(context: Context, action: ActionRecord) -> ActionRecord:
    """Make this process the one that drives an action."""
    pid, since = controller().split(":")[-2:]
    with context.store.transaction() as transaction:
        transaction.set_action(action.id, controller=here(), pid=int(pid), pid_started=since)
        return transaction.action(action.id)


def read_output(
    context: Context, action: ActionRecord, node: Node, write: docker_exec.Write, *, follow: bool
) -> None:
    """Pass on what a node printed; with `follow`, until the action ends there.

    Raises:
        EpicError: The node does not run, or knows nothing of the action.
    """
    host = context.hosts[node.host]
    while True:
        try:
            reach = functools.partial(ssh.nearby, host)
            return following.read_output(reach, node, action.id, write, follow=follow)
        except NotFound:
            # Its turn is still to come, or the script is on its way to it.
            with context.store.read() as transaction:
                outcome = transaction.action(action.id).nodes[node.short_name]
            if not follow or outcome.is_over:
                raise
            time.sleep(TURN_PAUSE_SECONDS)


def _ask_nodes(
    host: Host, nodes: Sequence[Node], key: str, timeout_seconds: int
) -> dict[str, NodeOutcome | None]:
    def ask(node: Node) -> tuple[str, NodeOutcome | None]:
        try:
            told = following.show(host, node.container, key)
        except DockerUnavailable:
            raise
        except EpicError as problem:  # it does not run: what it has to say, it says later
            return node.short_name, NodeOutcome("unknown", None, problem.message, time.time())
        return node.short_name, decide.shown(told, timeout_seconds=timeout_seconds, now=time.time())

    with ThreadPoolExecutor(min(len(nodes), AT_ONCE)) as pool:
        return dict(pool.map(ask, nodes))


def _nodes_of(store: Store, action: ActionRecord) -> dict[str, Node]:
    with store.read() as transaction:
        try:
            cluster = transaction.find_cluster(action.cluster, action.tenant)
        except InputError:
            return {}
    return {node.short_name: node for node in cluster.nodes}


def _write(store: Store, key: str, outcomes: Mapping[str, NodeOutcome]) -> None:
    if outcomes:
        settled(
            store, lambda transaction: transaction.set_action(key, outcomes), lambda _step: None
        )


def _close(store: Store, key: str) -> ActionRecord:
    """Record that an action is over, if it is; return it."""

    def change(transaction: Transaction) -> ActionRecord:
        action = transaction.action(key)
        state = decide.overall(action.nodes)
        if state == "running":
            return action
        ends = [node.ended_at for node in action.nodes.values() if node.ended_at]
        transaction.set_action(key, state=state, ended_at=max(ends, default=time.time()))
        return transaction.action(key)

    return settled(store, change, lambda _step: None)
