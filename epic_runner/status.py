"""What a cluster is like now: what is wanted, what Docker has, what its services say.

`assess` decides, from data alone; `cluster_status` gathers the data, hosts and services at once.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from epic_runner import docker_api
from epic_runner.cluster import Endpoint, Node
from epic_runner.errors import EpicError
from epic_runner.gateway.paths import endpoint_prefix
from epic_runner.gateway.site import Gateway, behind
from epic_runner.hosts import Host
from epic_runner.operations import is_alive
from epic_runner.secrets import cluster_token
from epic_runner.spec.models import AppProbe
from epic_runner.store import ClusterRecord, OperationRecord, Store

PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class NodeStatus:
    """One node and the state it is in.

    The state is one of pending, creating, configuring, ready, error, stopping, stopped, deleting;
    `reason` says why it is not ready.
    """

    name: str
    role: str
    host: str
    container: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class EndpointStatus:
    """An address that people open."""

    name: str
    label: str
    node: str
    url: str


@dataclass(frozen=True)
class ClusterStatus:
    """A whole cluster: green is as wanted, yellow works in part, red does not work.

    `strays` are containers that carry the cluster's labels but are not its nodes.
    """

    name: str
    tenant: str
    owner: str
    app: str
    wanted: str
    health: str
    reason: str
    nodes: tuple[NodeStatus, ...]
    endpoints: tuple[EndpointStatus, ...]
    strays: tuple[str, ...] = ()
    operation: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        return asdict(self)


# By the name of a probed service and node: None when it is ready, else what it answered.
Answers = Mapping[tuple[str, str], str | None]


def node_status(  # noqa: PLR0911 - one answer a state reads best
    node: Node,
    container: Mapping[str, Any] | None,
    *,
    services: Iterable[str],
    answers: Answers,
    wanted: str,
    leaving: bool,
    busy: bool,
    unreachable: str | None = None,
) -> NodeStatus:
    """Decide the state of one node.

    Args:
        node: The node.
        container: Docker's summary of its container; None where there is none.
        services: The services it runs.
        answers: What the probes of services said.
        wanted: What is wanted of the cluster.
        leaving: Whether a shrink has begun to remove it.
        busy: Whether an operation is under way on the cluster.
        unreachable: Why its host could not be asked, if it could not.
    """

    def is_in(state: str, reason: str = "") -> NodeStatus:
        return NodeStatus(node.short_name, node.role, node.host, node.container, state, reason)

    if unreachable is not None:
        return is_in("error", unreachable)
    running = container is not None and container["State"] == "running"
    if leaving or wanted == "absent":
        return is_in("deleting", "" if busy else "its removal was cut off")
    if container is None:
        return is_in("pending", "" if busy else f"its container on host {node.host} is missing")
    if wanted == "stopped":
        return is_in("stopping" if running else "stopped")
    if container["State"] == "created":
        return is_in("creating", "" if busy else "its container was made but never started")
    if not running:
        # Docker's own words: "Exited (137) 3 minutes ago".
        return is_in("configuring" if busy else "error", str(container.get("Status", "")))
    for service in services:
        answer = answers.get((service, node.name))
        if answer is not None:
            return is_in("configuring" if busy else "error", f"{service}: {answer}")
    return is_in("ready")


def health(nodes: Iterable[NodeStatus], wanted: str, strays: Iterable[str]) -> tuple[str, str]:
    """Decide the health of a cluster, and say why it is not green.

    Red when a whole node role is down (a cluster without its master, or without any worker, does
    no work), yellow when anything else is not as wanted.
    """
    nodes = list(nodes)
    if wanted == "stopped":
        late = [f"{node.name} is {node.state}" for node in nodes if node.state != "stopped"]
        return ("yellow", "; ".join(late)) if late else ("green", "stopped")
    bad = [node for node in nodes if node.state != "ready"]
    named = "; ".join(
        f"{node.name} is {node.state}" + (f": {node.reason}" if node.reason else "")
        for node in bad[:3]
    )
    if len(bad) > len(bad[:3]):
        named += f"; and {len(bad) - 3} more"
    roles = {node.role for node in nodes}
    down = [role for role in roles if all(n.state != "ready" for n in nodes if n.role == role)]
    if down or not nodes:
        return "red", named or "it has no nodes"
    if bad:
        return "yellow", named
    strange = ", ".join(strays)
    return ("yellow", f"not its nodes: {strange}") if strange else ("green", "")


def evaluate(probe: AppProbe, answer: Any, node: str) -> str | None:
    """Return None when a service's JSON says that `node` is ready, else what is amiss."""
    if probe.list is None:
        return None
    members = answer.get(probe.list, []) if isinstance(answer, dict) else []
    mine = [member for member in members if member.get(probe.node) == node]
    wanted = probe.match
    if any(all(member.get(key) == value for key, value in wanted.items()) for member in mine):
        return None
    if not mine:
        return "not registered"
    return ", ".join(f"{key} is {mine[-1].get(key)}" for key in wanted)


def ask(port: int, path: str) -> tuple[Any, str | None]:
    """Ask a published service; return its JSON (or None) and why there is no answer (or None)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as problem:
        return None, f"does not answer ({type(problem).__name__})"
    finally:
        connection.close()
    if response.status != http.client.OK:
        return None, f"answers {response.status} {response.reason}"
    try:
        return json.loads(body), None
    except ValueError:
        return None, None


def probe_all(
    cluster: ClusterRecord,
    probes: Mapping[str, AppProbe],
    asked: Callable[..., Any] = ask,
    *,
    is_behind_gateway: bool = False,
) -> Answers:
    """Ask every service that has a probe; each address is asked once."""
    prefixes = path_prefixes(cluster) if is_behind_gateway else {}
    ports = {(name, node.name): port for node in cluster.nodes for name, port in node.ports.items()}
    addresses: dict[tuple[int, str], None] = {}
    for probe in probes.values():
        for (endpoint, node_name), port in ports.items():
            if endpoint == probe.endpoint:
                addresses[port, prefixes.get((endpoint, node_name), "") + probe.path] = None
    with ThreadPoolExecutor(max(len(addresses), 1)) as pool:
        said = dict(zip(addresses, pool.map(lambda item: asked(*item), addresses), strict=True))
    answers: dict[tuple[str, str], str | None] = {}
    for node in cluster.nodes:
        for service in cluster.spec.role(node.role).services:
            if service not in probes:
                continue
            probe = probes[service]
            # A service with an endpoint of its own is asked itself, another one by its registry.
            own = ports.get((probe.endpoint, node.name))
            port = own or next((p for (name, _), p in ports.items() if name == probe.endpoint), 0)
            path = prefixes.get((probe.endpoint, node.name), "") + probe.path
            answer, problem = said.get((port, path), (None, "cannot be asked"))
            answers[service, node.name] = problem or evaluate(probe, answer, node.name)
    return answers


def path_prefixes(cluster: ClusterRecord) -> dict[tuple[str, str], str]:
    """Return the paths that services are told behind a gateway, by endpoint and node."""
    return {
        (endpoint.name, node.name): endpoint_prefix(node, endpoint.name)
        for node in cluster.nodes
        for endpoint in cluster.spec.role(node.role).endpoints
        if endpoint.keeps_path
    }


def endpoints(
    cluster: ClusterRecord, *, with_token: bool, gateway: Gateway | None = None
) -> tuple[EndpointStatus, ...]:
    """Return the addresses of a cluster: behind its gateway, else on the host's loopback."""
    found = []
    for node in cluster.nodes:
        for endpoint in cluster.spec.role(node.role).endpoints:
            port = node.ports.get(endpoint.name)
            if port is not None:
                if gateway:
                    url = gateway.url + endpoint_prefix(node, endpoint.name) + endpoint.path
                else:
                    url = _url(cluster, endpoint, port, with_token=with_token)
                found.append(EndpointStatus(endpoint.name, endpoint.label, node.short_name, url))
    return tuple(found)


def _url(cluster: ClusterRecord, endpoint: Endpoint, port: int, *, with_token: bool) -> str:
    url = f"http://127.0.0.1:{port}{endpoint.path}"
    if endpoint.token and with_token:
        url += f"?token={cluster_token(cluster.tenant, cluster.name)}"
    return url


def cluster_status(
    cluster: ClusterRecord,
    hosts: Mapping[str, Host],
    probes: Mapping[str, AppProbe],
    operation: OperationRecord | None,
    *,
    with_token: bool = False,
) -> ClusterStatus:
    """Look at a cluster: its containers on all hosts, then its services."""
    labels = {"epic.tenant": cluster.tenant, "epic.cluster": cluster.name}
    used = sorted({node.host for node in cluster.nodes})
    live: dict[str, Mapping[str, Any]] = {}
    unreachable: dict[str, str] = {}
    for name in used:
        try:
            for container in docker_api.containers(hosts[name], labels):
                live[container["Names"][0].lstrip("/")] = container
        except EpicError as problem:
            unreachable[name] = problem.message
    wanted_running = cluster.wanted == "running"
    gateway = behind(cluster.tenant, cluster.name, hosts)
    answers: Answers = {}
    if wanted_running and live:
        answers = probe_all(cluster, probes, is_behind_gateway=gateway is not None)
    busy = operation is not None and is_alive(operation, time.time())
    nodes = tuple(
        node_status(
            node,
            live.get(node.container),
            services=cluster.spec.role(node.role).services,
            answers=answers,
            wanted=cluster.wanted,
            leaving=node.short_name in cluster.leaving,
            busy=busy,
            unreachable=unreachable.get(node.host),
        )
        for node in cluster.nodes
    )
    strays = tuple(sorted(live.keys() - {node.container for node in cluster.nodes}))
    colour, reason = health(nodes, cluster.wanted, strays)
    return ClusterStatus(
        name=cluster.name,
        tenant=cluster.tenant,
        owner=cluster.owner,
        app=f"{cluster.spec.app}@{cluster.spec.app_version}",
        wanted=cluster.wanted,
        health=colour,
        reason=reason,
        nodes=nodes,
        endpoints=endpoints(cluster, with_token=with_token, gateway=gateway),
        strays=strays,
        operation=_operation(operation, busy=busy),
    )


def last_operation(store: Store, cluster: ClusterRecord) -> OperationRecord | None:
    """Return the newest operation of a cluster."""
    with store.read() as transaction:
        return next(iter(transaction.operations(cluster.tenant, cluster.name, limit=1)), None)


def _operation(operation: OperationRecord | None, *, busy: bool) -> dict[str, Any] | None:
    if operation is None:
        return None
    state = operation.state
    if state == "running" and not busy:
        state = "interrupted"  # its controller died; the next operation will record that
    return {
        "id": operation.id,
        "verb": operation.verb,
        "state": state,
        "phase": operation.phase,
        "user": operation.user,
        "error": operation.error,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
    }
