"""Placing a cluster's nodes on many hosts: how long the pure function takes.

Hosts stand in racks of 25 and have different loads; three masters are placed first, then workers.
"""

from __future__ import annotations

import time

from common import median, parser, report

from epic_runner.cluster import Size
from epic_runner.hosts import Host
from epic_runner.placement import Wish, place

GIB = 2**30
RACK = 25


def seconds(hosts: int, nodes: int) -> float:
    """Return the seconds in which `nodes` workers find their places."""
    machines = [
        Host(f"host-{number:04}", 64, 512 * GIB, rack=f"rack-{number // RACK}")
        for number in range(hosts)
    ]
    used = {machine.name: Size(4, number % 7 * GIB) for number, machine in enumerate(machines)}
    masters = [Wish(f"master-{number}", Size(4, 16 * GIB), apart=True) for number in range(3)]
    workers = [Wish(f"worker-{number}", Size(4, 8 * GIB)) for number in range(nodes)]
    start = time.perf_counter()
    place([*masters, *workers], machines, used)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--hosts", type=int, default=1000)
    made.add_argument("--nodes", type=int, default=20_000)
    arguments = made.parse_args()
    figures = {
        f"{hosts} hosts, {nodes} nodes": median(
            [seconds(hosts, nodes) for _ in range(arguments.rounds)]
        )
        for hosts, nodes in (
            (arguments.hosts // 2, arguments.nodes // 2),
            (arguments.hosts, arguments.nodes),
            (arguments.hosts * 2, arguments.nodes * 2),
        )
    }
    result = {
        "benchmark": "placement", "hosts": arguments.hosts, "nodes": arguments.nodes,
        "seconds": list(figures.values())[1], "half_and_double": [*figures.values()][::2],
    }  # fmt: skip
    report(result, [["size", "seconds"], *map(list, figures.items())], as_json=arguments.json)


if __name__ == "__main__":
    main()
