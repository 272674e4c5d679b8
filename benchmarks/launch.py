"""From launch to all workers ALIVE, against the same image started by hand.

Three ways in turn, in every round, on this host:

stock   `docker run` of master and workers at once, with Spark's own `spark-class`
floor   the same daemons as ours (class data archives, serial collector, workers that wait for the
        master's port), started by hand: what is left to an infinitely fast launcher
epic    `epic-run launch`

All nodes have the same limits of processor and memory in the three ways. Also measured: until the
containers are made, against `docker run` alone. What a launch takes until the tenant's network is
made is the start of epic-run and of Ansible.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import time
from collections.abc import Sequence
from tempfile import NamedTemporaryFile

from common import (
    EPIC_RUN,
    IMAGE,
    LABEL,
    TEMPLATE,
    address_of,
    alive_workers,
    median,
    own_home,
    removed,
    report,
    run,
    wait_for,
)
from common import parser as options

CORES, MEMORY = 1, "1g"
NETWORK = "epic-benchmark"
LIMITS = ("--cpus", str(CORES), "--memory", MEMORY, "--memory-swap", MEMORY)
WORKER_MEMORY = "512m"


def commands(workers: int, master: Sequence[str], worker: Sequence[str]) -> list[list[str]]:
    """Return the `docker run` of each node, the master's first."""
    made = []
    for index in range(workers + 1):
        name = f"bench-{index}"
        made.append(
            ["docker", "run", "-d", "--name", name, "--hostname", name, "--network", NETWORK,
             "--label", LABEL, *LIMITS, "--entrypoint", "/bin/bash", IMAGE, "-c",
             " ".join(worker if index else master)]
        )  # fmt: skip
    return made


STOCK = (
    ["exec", "/opt/spark/bin/spark-class", "org.apache.spark.deploy.master.Master",
     "--host", "bench-0", "--port", "7077"],
    ["exec", "/opt/spark/bin/spark-class", "org.apache.spark.deploy.worker.Worker",
     "--cores", str(CORES), "--memory", WORKER_MEMORY, "spark://bench-0:7077"],
)  # fmt: skip
FLOOR = (
    ["mkdir -p /etc/spark/conf;", "exec", "/opt/spark/bin/epic-spark-daemon", "master",
     "--host", "bench-0", "--port", "7077", "--webui-port", "8080"],
    ["mkdir -p /etc/spark/conf;", "epic-wait tcp bench-0 7077;", "exec",
     "/opt/spark/bin/epic-spark-daemon", "worker", "--host", "$HOSTNAME", "--webui-port", "8081",
     "--cores", str(CORES), "--memory", WORKER_MEMORY, "--work-dir", "/tmp/work",
     "spark://bench-0:7077"],
)  # fmt: skip


def by_hand(workers: int, ways: tuple[Sequence[str], Sequence[str]]) -> tuple[float, float]:
    """Start a cluster by `docker run`; return seconds to containers made and to all ALIVE."""
    run("docker", "network", "create", "--label", LABEL, NETWORK)
    try:
        start = time.monotonic()
        running = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL)
            for command in commands(workers, *ways)
        ]
        if any(process.wait() for process in running):
            raise SystemExit("docker run failed.")
        made = time.monotonic()
        url = f"http://{address_of('bench-0')}:8080/json/"
        alive = wait_for(lambda: alive_workers(url) == workers)
        return made - start, alive - start
    finally:
        names = [f"bench-{index}" for index in range(workers + 1)]
        subprocess.run(["docker", "rm", "-f", *names], check=False, capture_output=True)
        run("docker", "network", "rm", NETWORK)


def launched(workers: int) -> tuple[float, float, float, float]:
    """Launch a cluster; return seconds to the network, to containers, to ALIVE, to the end."""
    with own_home() as env, NamedTemporaryFile("w", suffix=".yml") as file:
        # A home that is in use has a database.
        run(EPIC_RUN, "list", env=env)
        file.write(TEMPLATE.format(workers=workers, cores=CORES, memory=MEMORY))
        file.flush()
        start, clock = time.monotonic(), time.time()
        process = subprocess.Popen(
            [EPIC_RUN, "launch", file.name], env=env, stdout=subprocess.DEVNULL
        )
        try:
            master = "epic.benchmark.bench.master-1"
            wait_for(lambda: is_running(master), pause=0.2)
            url = f"http://{address_of(master)}:8080/json/"
            alive = wait_for(lambda: alive_workers(url) == workers)
            if process.wait():
                raise SystemExit("epic-run launch failed.")
            end = time.monotonic()
            return network_at() - clock, made_at() - clock, alive - start, end - start
        finally:
            process.wait()
            removed(env)


def is_running(container: str) -> bool:
    """Tell whether a container is there and runs."""
    done = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Running}}", container],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip() == "true"


def moment(text: str) -> float:
    """Return a moment as Docker writes it, since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()


def network_at() -> float:
    """Return when the network of the benchmark's tenant was made."""
    return moment(json.loads(run("docker", "network", "inspect", "epic.benchmark"))[0]["Created"])


def made_at() -> float:
    """Return when the last container of the benchmark's cluster was started, since the epoch."""
    names = run("docker", "ps", "-q", "--filter", "label=epic.tenant=benchmark").split()
    states = [item["State"] for item in json.loads(run("docker", "inspect", *names))]
    return max(moment(state["StartedAt"]) for state in states)


def main() -> None:
    """Run the benchmark."""
    made = options(__doc__, rounds=3)
    made.add_argument("--workers", type=int, nargs="+", default=[1, 4, 12])
    arguments = made.parse_args()
    result: dict[str, dict[str, float]] = {}
    for workers in arguments.workers:
        stock: list[tuple[float, float]] = []
        floor: list[tuple[float, float]] = []
        epic: list[tuple[float, float, float, float]] = []
        for _ in range(arguments.rounds):
            stock.append(by_hand(workers, STOCK))
            floor.append(by_hand(workers, FLOOR))
            epic.append(launched(workers))
        figures = {
            "stock": median([alive for _, alive in stock]),
            "floor": median([alive for _, alive in floor]),
            "epic": median([alive for _, _, alive, _ in epic]),
            "end": median([end for *_, end in epic]),
            "docker_run": median([containers for containers, _ in [*stock, *floor]]),
            "containers": median([containers for _, containers, _, _ in epic]),
            "start": median([network for network, *_ in epic]),
        }
        figures["epic_to_stock"] = round(figures["epic"] / figures["stock"], 2)
        figures["epic_to_floor"] = round(figures["epic"] / figures["floor"], 2)
        figures["containers_to_docker_run"] = round(
            (figures["containers"] - figures["start"]) / figures["docker_run"], 2
        )
        result[str(workers)] = figures
    heads = [
        "workers", "stock", "floor", "epic", "epic/stock", "epic/floor",
        "docker run", "start", "containers", "(containers-start)/docker run",
    ]  # fmt: skip
    rows = [
        [workers, f["stock"], f["floor"], f["epic"], f["epic_to_stock"], f["epic_to_floor"],
         f["docker_run"], f["start"], f["containers"], f["containers_to_docker_run"]]
        for workers, f in result.items()
    ]  # fmt: skip
    report({"benchmark": "launch", "rounds": arguments.rounds, **result}, [heads, *rows],
           as_json=arguments.json)  # fmt: skip


if __name__ == "__main__":
    main()
