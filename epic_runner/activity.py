"""What clusters are used for: asked in their nodes, all at once, and put together.

`node_activity` is what each node is asked by. When in doubt a cluster is in use: a node that runs
and does not answer, or a service that does not, counts as activity.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epic_runner import docker_api, docker_exec
from epic_runner.cluster import Node
from epic_runner.errors import EpicError
from epic_runner.everywhere import ask_all
from epic_runner.gateway.paths import endpoint_prefix
from epic_runner.hosts import Host
from epic_runner.store import ClusterRecord

# What a host has for telling of all its nodes.
LOOK_SECONDS = 30.0
# How many nodes of a host are asked at once: each starts a Python.
NODES_AT_ONCE = 8

# The services that are asked, by the endpoint where they listen, and what for.
_ASKED = {"jupyter": "/api/kernels", "spark-master": "/json/"}


@dataclass(frozen=True)
class Report:
    """What a node told: `node_activity.look`'s answer, or why there is none."""

    signs: tuple[tuple[str, float], ...] = ()
    active: tuple[Mapping[str, Any], ...] = ()
    known: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what a node printed; raises ValueError or KeyError."""
        data = json.loads(text)
        return cls(
            tuple((sign["what"], float(sign["ago"])) for sign in data["signs"]),
            tuple(data["active"]),
            frozenset(data["known"]),
            tuple(data["doubts"]),
        )


@dataclass(frozen=True)
class Activity:
    """What a cluster was last used for.

    Attributes:
        ago: For how many seconds it has not been used; 0 while it is, None where nothing tells.
        what: What it was used for.
        doubtful: Whether it only counts as used because not everything could be asked.
    """

    ago: float | None = None
    what: str = ""
    doubtful: bool = False


def look(
    clusters: Iterable[ClusterRecord], hosts: Mapping[str, Host]
) -> dict[tuple[str, str], dict[str, Report]]:
    """Ask the nodes of clusters what they are used for.

    Returns:
        The reports by tenant and cluster, and by the node's short name. A node whose container
        does not run has none: nothing can be at work in it.
    """
    by_host: dict[str, list[tuple[ClusterRecord, Node]]] = {}
    for cluster in clusters:
        for node in cluster.nodes:
            by_host.setdefault(node.host, []).append((cluster, node))

    def ask(host: Host) -> dict[tuple[str, str], dict[str, Report]]:
        running = {
            container["Names"][0].lstrip("/")
            for container in docker_api.containers(host, {"epic.cluster": None})
            if container["State"] in ("running", "paused", "restarting")
        }
        wanted = [item for item in by_host[host.name] if item[1].container in running]
        # The deadline of this thread goes along into the pool's.
        contexts = [(contextvars.copy_context(), *item) for item in wanted]
        with ThreadPoolExecutor(NODES_AT_ONCE) as pool:
            told = pool.map(lambda item: item[0].run(_ask, host, item[1], item[2]), contexts)
            reports: dict[tuple[str, str], dict[str, Report]] = {}
            for (_, node), report in zip(wanted, told, strict=True):
                reports.setdefault((node.tenant, node.cluster), {})[node.short_name] = report
        return reports

    answers, silent = ask_all(
        (hosts[name] for name in by_host if name in hosts), ask, seconds=LOOK_SECONDS
    )
    found: dict[tuple[str, str], dict[str, Report]] = {}
    for answer in answers.values():
        for key, reports in answer.items():
            found.setdefault(key, {}).update(reports)
    for host, items in by_host.items():
        if host in answers:
            continue
        why = silent.get(host, f"host {host} is not in the inventory")
        for _, node in items:
            found.setdefault((node.tenant, node.cluster), {})[node.short_name] = Report(
                doubts=(why,)
            )
    return found


def addresses(cluster: ClusterRecord, node: Node) -> dict[str, list[str]]:
    """Return where a node's services are asked inside it; first without a gateway's paths."""
    return {
        endpoint.name: [
            f"http://localhost:{endpoint.port}{prefix}{_ASKED[endpoint.name]}"
            for prefix in ("", *([endpoint_prefix(node, endpoint.name)] * endpoint.keeps_path))
        ]
        for endpoint in cluster.spec.role(node.role).endpoints
        if endpoint.name in _ASKED
    }


def _ask(host: Host, cluster: ClusterRecord, node: Node) -> Report:
    source = Path(__file__).with_name("node_activity.py").read_text(encoding="utf-8")
    command = ["python3", "-ISc", source, json.dumps(addresses(cluster, node))]
    pieces: list[bytes] = []
    errors: list[bytes] = []
    try:
        code = docker_exec.stream(
            host,
            node.container,
            command,
            lambda piece, is_error: (errors if is_error else pieces).append(piece),
        )
    except EpicError as problem:
        return Report(doubts=(f"{node.short_name}: {problem.message}",))
    try:
        return Report.from_json(b"".join(pieces).decode("utf-8", "replace"))
    except (ValueError, KeyError):
        said = b"".join(errors).decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Report(doubts=(f"{node.short_name} cannot tell: {said or f'exit code {code}'}",))


def assess(reports: Mapping[str, Report], driven_elsewhere: Iterable[str] = ()) -> Activity:
    """Return what a cluster is used for, from what its nodes told.

    Args:
        reports: Its nodes' reports, by short name.
        driven_elsewhere: The Spark applications whose drivers are on nodes of clusters that are
            connected to it, and tell themselves whether they work.
    """
    driven = {*driven_elsewhere, *(key for report in reports.values() for key in report.known)}
    signs = [(ago, what) for report in reports.values() for what, ago in report.signs]
    # An application whose driver nobody knows works as long as it has cores, or waits for some.
    signs += [
        (0.0, f"the Spark application {app['name']}")
        for report in reports.values()
        for app in report.active
        if app["id"] not in driven and (app["cores"] or app["state"] == "WAITING")
    ]
    doubts = [
        f"{name}: {doubt}" if name not in doubt else doubt
        for name, report in reports.items()
        for doubt in report.doubts
    ]
    ago, what = min(signs, default=(None, ""))
    if doubts and ago != 0:
        return Activity(0.0, doubts[0], doubtful=True)
    return Activity(ago, what)
