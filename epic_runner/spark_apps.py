"""What Spark says of a job's applications: their ids, stages and pages.

The driver writes its application's id into a file of the job (role `spark`, log4j2.properties). The
rest is asked of the application's own REST interface beside it while it runs, and of the history
server, where the cluster has one, when it is over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from epic_runner import docker_api, docker_exec
from epic_runner.cluster import Node
from epic_runner.errors import EpicError
from epic_runner.hosts import Host
from epic_runner.store import ClusterRecord

HISTORY_SERVICE, HISTORY_PORT = "spark-history", 18080
MASTER_SERVICE = "spark-master"
# Where drivers of one node listen: each takes the first of these that is free, as Spark does.
DRIVER_PORTS = range(4040, 4057)

_ID = re.compile(rb"\bapp-\d{14}-\d{4,}\b")
# Prints an application's name and how many stages are in which state, by the first that knows it.
_ASK = """
import collections, json, sys, urllib.request
key, *bases = sys.argv[1:]
for base in bases:
    def ask(path):
        url = f"{base}/api/v1/applications/{key}{path}"
        return json.load(urllib.request.urlopen(url, timeout=5))
    try:
        name = ask("")["name"]
        stages = collections.Counter(item["status"].lower() for item in ask("/stages"))
    except (OSError, ValueError):
        continue
    print(json.dumps({"name": name, "stages": stages}))
    break
"""


@dataclass(frozen=True)
class Application:
    """An application of Spark.

    Attributes:
        id: Spark's id of it.
        name: Its name; empty where nobody could be asked.
        stages: How many stages are `active`, `complete`, `pending`, `failed` or `skipped`.
        page: The service that has its pages: `spark-master`, `spark-history`, or empty.
    """

    id: str
    name: str = ""
    stages: dict[str, int] = field(default_factory=dict)
    page: str = ""

    def url(self, endpoint: str) -> str:
        """Return the address of its page behind that of the service that has it."""
        where = "proxy" if self.page == MASTER_SERVICE else "history"
        return f"{endpoint.rstrip('/')}/{where}/{self.id}/"


def ids(host: Host, node: Node, key: str) -> tuple[str, ...]:
    """Return Spark's ids of the applications that a job was, also of a node that has stopped."""
    try:
        path = f"/data/jobs/{key}.files/applications"
        text = docker_api.read_file(host, node.container, path) or b""
    except EpicError:
        return ()
    return parsed(text)


def parsed(text: bytes) -> tuple[str, ...]:
    """Return the ids that drivers have told, each once."""
    return tuple(dict.fromkeys(found.decode() for found in _ID.findall(text)))


def look(
    hosts: dict[str, Host], node: Node, key: str, cluster: ClusterRecord, *, is_over: bool
) -> Application:
    """Return what is known of an application now.

    Args:
        hosts: The hosts of the nodes, as they are reached.
        node: The node of its driver.
        key: Its id.
        cluster: The cluster on which it runs.
        is_over: Whether the job is over, and only the history server may know it.
    """
    if not is_over:
        ports = [f"http://localhost:{port}" for port in DRIVER_PORTS]
        if told := _ask(hosts[node.host], node, key, ports):
            return Application(key, told["name"], told["stages"], MASTER_SERVICE)
    for other in cluster.staying():
        if HISTORY_SERVICE in cluster.spec.role(other.role).services and other.host in hosts:
            bases = [f"http://localhost:{HISTORY_PORT}"]
            if told := _ask(hosts[other.host], other, key, bases):
                return Application(key, told["name"], told["stages"], HISTORY_SERVICE)
    return Application(key)


def _ask(host: Host, node: Node, key: str, bases: Sequence[str]) -> dict[str, Any] | None:
    try:
        code, text = docker_exec.output_of(
            host, node.container, ["python3", "-ISc", _ASK, key, *bases]
        )
    except EpicError:
        return None
    return dict(json.loads(text)) if code == 0 and text.strip() else None
