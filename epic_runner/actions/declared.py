"""The actions that a template declares: run on the nodes that lack them, before they are of use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from epic_runner import docker_api
from epic_runner.actions import decide, drive
from epic_runner.actions.due import container_ids, due, how
from epic_runner.actions.printing import harmless
from epic_runner.actions.request import ActionRequest, refusal
from epic_runner.cluster import CONTINUE, ClusterSpec, DeclaredAction
from epic_runner.errors import InputError, NotFound, OperationFailed
from epic_runner.events import Listener, Step
from epic_runner.everywhere import ask_all
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context
from epic_runner.output import shortened
from epic_runner.store import ActionRecord, ClusterRecord, NodeOutcome, Store, TenantRecord

PHASE = "Run the declared actions"
# How much of what a node printed is told when a script failed there.
LAST_LINES = 10
_LAST_BYTES = 4096


def admitted(
    context: Context,
    spec: ClusterSpec,
    tenant_document: Mapping[str, Any] | None,
    user: str | None,
) -> ClusterSpec:
    """Return a spec whose actions know as whom they run, if that one may.

    An attempt of somebody who may not is recorded, as one to run an action is.

    Args:
        context: The store.
        spec: The cluster as wanted.
        tenant_document: The Tenant document that is applied with it, if there is one.
        user: Who launches; by default who owns the cluster, or the tenant's first administrator.

    Raises:
        InputError: An action is to run as root, which the user may not become.
    """
    with context.store.read() as transaction:
        tenant = (
            TenantRecord(spec.tenant, tenant_document, {})
            if tenant_document is not None
            else transaction.tenant(spec.tenant)
        )
        try:
            cluster = transaction.find_cluster(spec.name, spec.tenant)
        except NotFound:
            cluster = ClusterRecord(0, spec, "", "running", ())
    acting = user or cluster.owner or tenant.default_user() or ""
    for action in spec.actions:
        _refuse(context.store, tenant, cluster, replace(action, user=acting), action.script)
    return replace(spec, actions=tuple(replace(item, user=acting) for item in spec.actions))


def complete(context: Context, cluster: ClusterRecord, tenant: TenantRecord) -> None:
    """Run the declared actions of a cluster, in their order, on the nodes that lack them.

    Those that an earlier controller has left running are waited for first.

    Args:
        context: The store, the hosts, and who is told of each step.
        cluster: The cluster, whose nodes run.
        tenant: Its tenant.

    Raises:
        OperationFailed: One failed on a node, and the template does not say to go on.
    """
    containers = _containers(context.hosts, cluster)
    _await_earlier(context, cluster)
    for action in cluster.spec.actions:
        with context.store.read() as transaction:
            history = transaction.declared_history(cluster)
        names = due(action, cluster.staying(), containers, history)
        bad: Mapping[str, NodeOutcome] = {}
        if names:
            script = _script(context.store, cluster, action)
            _refuse(context.store, tenant, cluster, action, script)
            bad = _run(context, cluster, action, script, {name: containers[name] for name in names})
        if not bad and action.key not in history.done:
            with context.store.transaction() as transaction:
                transaction.set_declared_done(cluster.id, action.key)


def _containers(hosts: Mapping[str, Host], cluster: ClusterRecord) -> dict[str, str]:
    labels = {"epic.tenant": cluster.tenant, "epic.cluster": cluster.name}
    used = [hosts[name] for name in sorted({node.host for node in cluster.staying()})]
    found, silent = ask_all(used, lambda host: docker_api.containers(host, labels))
    live = {item["Names"][0].lstrip("/"): item for items in found.values() for item in items}
    have = container_ids(cluster, live)
    for node in cluster.staying():
        if node.short_name not in have:
            why = silent.get(node.host, "its container is missing")
            raise OperationFailed(f"{PHASE}: {node.short_name}: host {node.host}: {why}")
    return have


def _script(store: Store, cluster: ClusterRecord, action: DeclaredAction) -> bytes:
    with store.read() as transaction:
        script = transaction.declared_scripts(cluster.id).get(action.key)
    if script is None:
        raise OperationFailed(
            f"The script of the declared action {action.name} is not known any more.",
            f"Launch {cluster.name} again from its template's files.",
        )
    return script


def _refuse(
    store: Store,
    tenant: TenantRecord,
    cluster: ClusterRecord,
    action: DeclaredAction,
    script: bytes,
) -> None:
    reason = refusal(tenant, action.user, sudo=action.sudo)
    if not reason:
        return
    with store.transaction() as transaction:
        transaction.add_action(_record(cluster, action, script, {}, reason))
    raise InputError(
        f"The declared action {action.name} is refused: {reason}",
        "Members with `sudo: true` in the Tenant document may become root; launch as one of them, "
        "with --as.",
    )


def _record(
    cluster: ClusterRecord,
    action: DeclaredAction,
    script: bytes,
    containers: Mapping[str, str],
    refused: str = "",
) -> ActionRecord:
    request = ActionRequest(
        action.name,
        script,
        action.arguments,
        action.environment,
        action.sudo,
        action.timeout_seconds,
    )
    nodes = [node for node in cluster.staying() if node.short_name in containers]
    made = drive.new_record(cluster, request, action.user, nodes, refused)
    return replace(made, declared=action.key, containers=dict(containers))


def _run(
    context: Context,
    cluster: ClusterRecord,
    action: DeclaredAction,
    script: bytes,
    containers: Mapping[str, str],
) -> dict[str, NodeOutcome]:
    """Run an action on nodes; return those on which it went wrong, if the launch may go on.

    Raises:
        OperationFailed: It went wrong on a node, and nothing may go on.
    """
    begun = _record(cluster, action, script, containers)
    with context.store.transaction() as transaction:
        transaction.add_action(begun)
    teller = _Teller(context.listener, shortened(action.name))
    teller.begun(containers)
    over = drive.drive(context, begun, drive.Audience(teller.piece, teller.ended))
    bad = {name: over.nodes[name] for name in decide.failed_nodes(over.nodes)}
    if not bad or action.on_failure == CONTINUE:
        return bad
    name, outcome = next(iter(bad.items()))
    more = f" (and on {len(bad) - 1} more)" if len(bad) > 1 else ""
    said = teller.last_lines(name)
    raise OperationFailed(
        f"{PHASE}: {name}: {shortened(action.name)} {how(outcome)}{more}"
        + (f"\nIts last lines:\n{said}" if said else ""),
        f"Mend what is wrong, and give the same command again: nodes that have had it are left "
        f"alone. epic-run action logs {over.id} shows all that was printed.",
    )


def _await_earlier(context: Context, cluster: ClusterRecord) -> None:
    """Wait for declared actions that go on in nodes though who drove them is gone."""
    with context.store.read() as transaction:
        keys = [
            run.action
            for run in transaction.declared_history(cluster).runs
            if not all(node.is_over for node in run.nodes.values())
        ]
        earlier = [transaction.action(key) for key in keys]
    for action in earlier:
        teller = _Teller(context.listener, shortened(action.name))
        teller.begun(name for name, node in action.nodes.items() if not node.is_over)
        drive.rejoin(context, action, drive.Audience(teller.piece, teller.ended))


class _Teller:
    """Tells of an action's nodes as steps, and keeps the last that each has printed."""

    def __init__(self, listener: Listener, name: str) -> None:
        self._listener = listener
        self._name = name
        self._last: dict[str, bytes] = {}

    def begun(self, nodes: Iterable[str]) -> None:
        """Tell that nodes are at it."""
        self._listener(Step(PHASE))
        for node in nodes:
            self._listener(Step(PHASE, node, f"{self._name}: running"))

    def piece(self, node: str, data: bytes, _is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        kept = self._last.get(node, b"") if len(data) < _LAST_BYTES else b""
        self._last[node] = (kept + data[-_LAST_BYTES:])[-_LAST_BYTES:]

    def ended(self, node: str, outcome: NodeOutcome) -> None:
        failed = outcome.state != "done"
        self._listener(Step(PHASE, node, f"{self._name}: {how(outcome)}", failed=failed))

    def last_lines(self, node: str) -> str:
        """Return the last lines that a node has printed, fit for a terminal."""
        lines = self._last.get(node, b"").splitlines()[-LAST_LINES:]
        return "\n".join(f"  {harmless(line).decode('utf-8', 'replace')}" for line in lines)
