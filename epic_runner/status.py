"""What a cluster is like now: what is wanted, what Docker has, what its services say.

`assess` decides, from data alone; `cluster_status` gathers the data, hosts and services at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from epic_runner import docker_api, docker_exec
from epic_runner.actions.due import Coverage, awaited, container_ids, coverages
from epic_runner.cluster import Endpoint, Node
from epic_runner.deadline import within
from epic_runner.errors import DockerUnavailable, EpicError, SecretsUnavailable
from epic_runner.everywhere import ask_all
from epic_runner.gateway.paths import endpoint_prefix
from epic_runner.gateway.site import Gateway, surely_behind
from epic_runner.gateway.site import load as site_gateway
from epic_runner.hosts import Host
from epic_runner.operations import is_alive
from epic_runner.output import bytes_text
from epic_runner.secrets import find_token
from epic_runner.spec.models import AppProbe
from epic_runner.store import ClusterRecord, DeclaredHistory, OperationRecord, Store

PROBE_SECONDS = 2.0
# What a host has for asking a service inside a node, in all. With the look at containers before it,
# a status takes no longer than 18 s, whoever is silent when.
PROBING_SECONDS = 8.0
# How many different things a reason tells of.
_CLAUSES = 3


@dataclass(frozen=True)
class NodeStatus:
    """One node and the state it is in.

    The state is one of pending, creating, configuring, ready, error, stopping, stopped, deleting;
    `reason` says why it is not ready, `warning` what is not well although it is.
    """

    name: str
    role: str
    host: str
    container: str
    state: str
    reason: str = ""
    warning: str = ""


@dataclass(frozen=True)
class EndpointStatus:
    """An address that people open.

    `reach` says what is there to be asked: the `gateway`, this `host`, or the `network` of the
    tenant alone, where nobody outside reaches it.
    """

    name: str
    label: str
    node: str
    url: str
    reach: str


@dataclass(frozen=True)
class ActionStatus:
    """A declared action, and what has become of it on the nodes that it is for.

    `nodes` holds by short name its `state`, the id of the `action` that it was, when it `ended_at`
    and a `reason`. Beside the states of actions there are `due`, where it has yet to be run, and
    `passed over`, where a node came later and it is not replayed.
    """

    name: str
    sha256: str
    user: str
    replay: bool
    nodes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ClusterStatus:
    """A whole cluster: green is as wanted, yellow works in part, red does not work.

    `strays` are containers that carry the cluster's labels but are not its nodes. `way` is what
    opens a way to its addresses, where there is none. `connections` are the clusters that it may
    run on as well, `troubles` what keeps it from them; `gateway_away` says that the gateway's host
    is silent, and `silent` names those of its nodes that are. `use` says how old it is, whether it
    is used and when it ends (`standing.Standing.as_dict`). `actions` are those that its template
    declares, `awaits` names those before whose end nobody uses it; its addresses are told behind
    them.
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
    way: str = ""
    connections: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    gateway_away: str = ""
    silent: tuple[str, ...] = ()
    use: Mapping[str, Any] | None = None
    actions: tuple[ActionStatus, ...] = ()
    awaits: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        return asdict(self)


# By the name of a probed service and node: None when it is ready, else what it answered.
Answers = Mapping[tuple[str, str], str | None]

# By the name of a container: this machine's port of each of its own that is published.
Published = Mapping[str, Mapping[int, int]]


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
        return is_in("pending", "" if busy else _missing(node, wanted))
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


def _missing(node: Node, wanted: str) -> str:
    mended = ", a start makes it anew" if wanted == "stopped" else ""
    return f"its container on host {node.host} is missing{mended}"


def health(nodes: Iterable[NodeStatus], wanted: str, strays: Iterable[str]) -> tuple[str, str]:
    """Decide the health of a cluster, and say why it is not green.

    Red when a whole node role is down (a cluster without its master, or without any worker, does
    no work), yellow when anything else is not as wanted.
    """
    nodes = list(nodes)
    if wanted == "stopped":
        late = _named([node for node in nodes if node.state != "stopped"])
        return ("yellow", late) if late else ("green", "stopped")
    bad = [node for node in nodes if node.state != "ready"]
    named = _named(bad)
    roles = {node.role for node in nodes}
    down = [role for role in roles if all(n.state != "ready" for n in nodes if n.role == role)]
    if down or not nodes:
        return "red", named or "it has no nodes"
    if bad:
        return "yellow", named
    strange = ", ".join(strays)
    if strange:
        return "yellow", f"not its nodes: {strange}"
    warned = [f"{node.name} {node.warning}" for node in nodes if node.warning]
    return ("yellow", "; ".join(warned)) if warned else ("green", "")


def with_actions(node: NodeStatus, declared: Iterable[Coverage], *, busy: bool) -> NodeStatus:
    """Return a node that is ready as it is with its declared actions.

    One that has yet to get an action is of no use yet; where the template goes on after a failure,
    it is told beside.
    """
    for coverage in declared if node.state == "ready" else ():
        trouble = coverage.trouble(node.name)
        if trouble and (busy or coverage.holds_up):
            return replace(node, state="configuring" if busy else "error", reason=trouble)
        if trouble:
            warning = "; ".join(part for part in (node.warning, trouble) if part)
            node = replace(node, warning=warning)
    return node


def action_status(coverage: Coverage) -> ActionStatus:
    """Return a declared action as `status` tells of it."""

    def on(node: str) -> dict[str, Any]:
        last = coverage.had.get(node)
        if last is None:
            return {"state": "due" if node in coverage.due else "passed over"}
        outcome = last.outcome
        return {
            "state": outcome.state,
            "rc": outcome.rc,
            "action": last.action,
            "ended_at": outcome.ended_at,
            "reason": outcome.reason,
        }

    action = coverage.action
    return ActionStatus(
        action.name, action.digest, action.user, action.replay, {n: on(n) for n in coverage.nodes}
    )


def disk_warnings(
    cluster: ClusterRecord, hosts: Mapping[str, Host], live: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return by short name what to tell of nodes that hold more than their flavor's disk.

    Only these are asked for more than what listing their containers tells.
    """
    over = [
        node
        for node in cluster.nodes
        if node.container in live and docker_api.is_over_disk(live[node.container])
    ]

    def sentence(node: Node) -> str:
        limit = bytes_text(cluster.spec.role(node.role).size.disk_bytes)
        try:
            held = docker_api.held_bytes(hosts[node.host], node.container)
        except EpicError:
            held = None
        if held is None:
            return f"holds more on disk than its flavor's {limit}"
        return f"holds {bytes_text(held)} on disk, more than its flavor's {limit}"

    return {node.short_name: sentence(node) for node in over}


def _named(nodes: Iterable[NodeStatus]) -> str:
    """Return what is amiss with nodes; those that share a reason share a clause."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        groups.setdefault((node.state, node.reason), []).append(node.name)
    clauses = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {state}"
        + (f": {reason}" if reason else "")
        for (state, reason), names in groups.items()
    ]
    named = "; ".join(clauses[:_CLAUSES])
    more = sum(len(names) for names in [*groups.values()][_CLAUSES:])
    return f"{named}; and {more} more" if more else named


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


@dataclass(frozen=True)
class Place:
    """Where a service is asked.

    Attributes:
        node: The node that serves it.
        port: Its port inside the node.
        published: Its port on this machine's loopback address; None where there is none, and it
            is asked from inside its node.
        paths: What is asked for: the first of them that the service knows.
    """

    node: Node
    port: int
    published: int | None
    paths: tuple[str, ...]


def ask(hosts: Mapping[str, Host], place: Place) -> tuple[Any, str | None]:
    """Ask a service; return its JSON (or None) and why there is no answer (or None)."""
    if place.published is None:
        return _ask_inside(hosts[place.node.host], place)
    for path in place.paths:
        connection = http.client.HTTPConnection("127.0.0.1", place.published, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as problem:
            return None, f"does not answer ({type(problem).__name__})"
        finally:
            connection.close()
        if response.status != http.client.NOT_FOUND:
            break
    if response.status != http.client.OK:
        return None, f"answers {response.status} {response.reason}"
    return _read(body), None


# Prints what a service answers. The first word of a failure is what people are told.
_FETCH = """
import sys, urllib.error, urllib.request
for url in sys.argv[2:]:
    try:
        print(urllib.request.urlopen(url, timeout=float(sys.argv[1])).read().decode())
        sys.exit()
    except urllib.error.HTTPError as problem:
        said = f"answers {problem.code} {problem.reason}"
        if problem.code != 404:
            break
    except OSError as problem:
        sys.exit(f"does not answer ({type(getattr(problem, 'reason', problem)).__name__})")
sys.exit(said)
"""


def _ask_inside(host: Host, place: Place) -> tuple[Any, str | None]:
    urls = [f"http://{place.node.name}:{place.port}{path}" for path in place.paths]
    command = ["python3", "-ISc", _FETCH, str(PROBE_SECONDS), *urls]
    try:
        code, text = docker_exec.output_of(host, place.node.container, command)
    except EpicError as problem:
        return None, problem.message
    return (None, text.strip() or f"ends with {code}") if code else (_read(text), None)


def _read(body: str | bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def probe_all(
    cluster: ClusterRecord,
    probes: Mapping[str, AppProbe],
    asked: Callable[[Place], tuple[Any, str | None]],
    *,
    published: Published | None = None,
    is_behind_gateway: bool | None = False,
) -> Answers:
    """Ask every service that has a probe; each place is asked once.

    Args:
        cluster: The cluster.
        probes: The probe of each service that has one.
        asked: Asks at a place; returns JSON and why there is no answer.
        published: What is published of the nodes; what the store has reserved, if None.
        is_behind_gateway: Whether the cluster is reached by a gateway now; None where nobody knows.
            Services learn the paths that they have behind one, and forget them, only when their
            nodes are started again, so they are asked by both.
    """
    prefixes = path_prefixes(cluster)
    places: dict[tuple[str, str, str], Place] = {}
    for node in cluster.nodes:
        for endpoint in cluster.spec.role(node.role).endpoints:
            for probe in probes.values():
                if probe.endpoint == endpoint.name:
                    paths = [probe.path]
                    if prefix := prefixes.get((endpoint.name, node.name)):
                        paths.insert(0 if is_behind_gateway else 1, prefix + probe.path)
                    places[endpoint.name, node.name, probe.path] = Place(
                        node, endpoint.port, _port(node, endpoint, published), tuple(paths)
                    )
    distinct = [*places.values()]
    with ThreadPoolExecutor(max(len(distinct), 1)) as pool:
        said = dict(zip(places, pool.map(asked, distinct), strict=True))
    answers: dict[tuple[str, str], str | None] = {}
    for node in cluster.nodes:
        for service in cluster.spec.role(node.role).services:
            if service not in probes:
                continue
            probe = probes[service]
            # A service with an endpoint of its own is asked itself, another one by its registry.
            own = (probe.endpoint, node.name, probe.path)
            registry = next(
                (key for key in places if key[::2] == (probe.endpoint, probe.path)), own
            )
            answer, problem = said.get(own if own in said else registry, (None, "cannot be asked"))
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
    cluster: ClusterRecord,
    *,
    with_token: bool,
    gateway: Gateway | None = None,
    published: Published | None = None,
) -> tuple[EndpointStatus, ...]:
    """Return a cluster's addresses.

    They are behind its gateway, else on the host's loopback, else inside the tenant's network.
    """
    found = []
    for node in cluster.nodes:
        for endpoint in cluster.spec.role(node.role).endpoints:
            port = _port(node, endpoint, published)
            if gateway:
                url = gateway.url + endpoint_prefix(node, endpoint.name) + endpoint.path
                reach = "gateway"
            else:
                url = _url(cluster, node, endpoint, port, with_token=with_token)
                reach = "network" if port is None else "host"
            found.append(EndpointStatus(endpoint.name, endpoint.label, node.short_name, url, reach))
    return tuple(found)


def way_to(cluster: ClusterRecord, found: Iterable[EndpointStatus], gateway: Gateway | None) -> str:
    """Return what opens a way to addresses that nobody outside reaches; empty where there is one.

    Args:
        cluster: The cluster.
        found: Its addresses.
        gateway: The gateway of the site, whether or not the cluster is behind it.
    """
    if cluster.wanted != "running" or all(item.reach != "network" for item in found):
        return ""
    if gateway is None and any(node.address for node in cluster.nodes):
        return "epic-run gateway up makes a way to the addresses above, which nobody reaches."
    repair = f"epic-run repair {cluster.name}"
    if gateway is None:
        return f"{repair} publishes the addresses above on this machine; it restarts nodes."
    return f"epic-run gateway up && {repair} opens the way to the addresses above."


def published_ports(containers: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, int]]:
    """Return what Docker's summaries of running containers say of published ports."""
    return {
        container["Names"][0].lstrip("/"): {
            port["PrivatePort"]: port["PublicPort"]
            for port in container.get("Ports") or ()
            if "PublicPort" in port
        }
        for container in containers
        if container["State"] == "running"
    }


def _port(node: Node, endpoint: Endpoint, published: Published | None) -> int | None:
    """Return this machine's port of an endpoint.

    A running container's own word goes before what is reserved for the node.
    """
    if published is not None and node.container in published:
        return published[node.container].get(endpoint.port)
    return node.ports.get(endpoint.name)


def _url(
    cluster: ClusterRecord, node: Node, endpoint: Endpoint, port: int | None, *, with_token: bool
) -> str:
    where = f"127.0.0.1:{port}" if port else f"{node.name}:{endpoint.port}"
    url = f"http://{where}{endpoint.path}"
    if endpoint.token and with_token:
        # Without Vault, the address is of use all the same: the service asks for the token.
        with contextlib.suppress(SecretsUnavailable):
            token = find_token(cluster.tenant, cluster.name)
            url += f"?token={token}" if token else ""
    return url


def cluster_status(
    cluster: ClusterRecord,
    hosts: Mapping[str, Host],
    probes: Mapping[str, AppProbe],
    operation: OperationRecord | None,
    *,
    with_token: bool = False,
    troubles: Iterable[str] = (),
    history: DeclaredHistory | None = None,
) -> ClusterStatus:
    """Look at a cluster: its containers on all hosts, then its services.

    Args:
        cluster: The cluster.
        hosts: All hosts by name.
        probes: The probe of each service that has one.
        operation: Its last operation.
        with_token: Whether addresses carry the cluster's token.
        troubles: What keeps it from the clusters that it is connected to.
        history: What was run of its declared actions; they are not looked at if None.
    """
    labels = {"epic.tenant": cluster.tenant, "epic.cluster": cluster.name}
    used = sorted({node.host for node in cluster.nodes})
    with ThreadPoolExecutor(1) as pool:
        way = pool.submit(surely_behind, cluster.tenant, cluster.name, hosts)
        found, unreachable = ask_all(
            (hosts[name] for name in used), lambda host: docker_api.containers(host, labels)
        )
    gateway, is_behind_gateway = None, None
    gateway_away = ""
    try:
        gateway = way.result()
        is_behind_gateway = gateway is not None
    except DockerUnavailable as problem:
        # Nobody knows, then. A host with nodes is told with them.
        known = site_gateway()
        if known is None or known.host not in unreachable:
            gateway_away = f"the gateway is away: {problem.message}"
    live: dict[str, Mapping[str, Any]] = {
        container["Names"][0].lstrip("/"): container
        for containers in found.values()
        for container in containers
    }
    wanted_running = cluster.wanted == "running"
    published = published_ports(live.values())
    answers: Answers = {}
    if wanted_running and live:

        def asked(place: Place) -> tuple[Any, str | None]:
            silent = unreachable.get(place.node.host)
            if silent:
                return None, silent
            with within(PROBING_SECONDS):
                return ask(hosts, place)

        answers = probe_all(
            cluster, probes, asked, published=published, is_behind_gateway=is_behind_gateway
        )
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
    warnings = disk_warnings(cluster, hosts, live)
    nodes = tuple(replace(node, warning=warnings.get(node.name, "")) for node in nodes)
    declared: tuple[Coverage, ...] = ()
    awaits: tuple[str, ...] = ()
    if history is not None:
        awaits = awaited(cluster, history)
        declared = coverages(cluster, container_ids(cluster, live), history)
        nodes = tuple(with_actions(node, declared, busy=busy) for node in nodes)
    strays = tuple(sorted(live.keys() - {node.container for node in cluster.nodes}))
    colour, reason = health(nodes, cluster.wanted, strays)
    troubles = list(troubles) if cluster.wanted == "running" else []
    gateway_away = gateway_away if cluster.wanted == "running" else ""
    if amiss := [*troubles, *([gateway_away] if gateway_away else [])]:
        colour = "yellow" if colour == "green" else colour
        reason = "; ".join([*([reason] if reason else []), *amiss])
    addresses = endpoints(cluster, with_token=with_token, gateway=gateway, published=published)
    addresses = () if awaits else addresses
    return ClusterStatus(
        name=cluster.name,
        tenant=cluster.tenant,
        owner=cluster.owner,
        app=f"{cluster.spec.app}@{cluster.spec.app_version}",
        wanted=cluster.wanted,
        health=colour,
        reason=reason,
        nodes=nodes,
        endpoints=addresses,
        strays=strays,
        operation=_operation(operation, busy=busy),
        way=way_to(cluster, addresses, site_gateway()),
        connections=cluster.spec.connections,
        troubles=tuple(troubles),
        gateway_away=gateway_away,
        silent=tuple(sorted(unreachable)),
        actions=tuple(map(action_status, declared)),
        awaits=awaits,
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
