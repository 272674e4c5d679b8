"""A script on the nodes of a cluster over the three hosts of scripts/lab.

floor    one ssh a host, and there `docker exec` for all its nodes at once: nothing is kept of what
         they print, nor of how they ended
action   `epic-run action run`, from its start to its end

Both run the same trivial script, in turns. Then some nodes print 100 MB each at once: what arrives
is compared with digests that the nodes made of what they printed, and the peak of the command's
memory is told; and each prints one line and goes on, for the time until that line is seen.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common import EPIC_RUN, TEMPLATE, median, own_home, parser, removed, report, run
from laboratory import Hosts

NAME = "bench"
TRIVIAL = 'echo "$HOSTNAME"'
# 99,900 lines of 1001 bytes.
PRINTED_BYTES = 99_999_900
PRINT = (
    f"base64 -w 1000 /dev/urandom | head -c {PRINTED_BYTES} | tee >(sha256sum >~/digest); "
    "until [ -s ~/digest ]; do sleep 0.1; done"
)
LATE = "date +%s.%N; sleep 3"
MEGABYTE = 10**6


def containers(hosts: Hosts) -> dict[str, list[str]]:
    """Return the names of the nodes' containers by their host's address."""
    return {
        address: run(*hosts.ssh(address, "docker ps -q --filter label=epic.cluster")).split()
        for address in hosts.addresses
    }


def by_hand(hosts: Hosts, nodes: dict[str, list[str]]) -> float:
    """Run the trivial script by one ssh a host; return the seconds."""
    commands = [
        hosts.ssh(
            address,
            f"printf '%s\\n' {' '.join(names)} | xargs -P{len(names)} -I NODE "
            f"docker exec NODE bash -c '{TRIVIAL}'",
        )
        for address, names in nodes.items()
        if names
    ]
    began = time.monotonic()
    hosts.all_done(commands)
    return time.monotonic() - began


def action(command: str, *words: str) -> list[str]:
    """Return the command that runs a script on the cluster's nodes."""
    return [EPIC_RUN, "action", "run", NAME, *words, "--command", command]


def acted(env: dict[str, str], count: int) -> float:
    """Run the trivial script as an action; return the seconds."""
    began = time.monotonic()
    lines = run(*action(TRIVIAL), env=env).splitlines()
    seconds = time.monotonic() - began
    if len(lines) != count:
        raise SystemExit(f"{len(lines)} nodes of {count} printed their names.")
    return seconds


class Peak(threading.Thread):
    """Looks at how much memory a process had at most, until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.kilobytes = 0
        self.start()

    def run(self) -> None:
        """Look, again and again."""
        with suppress(OSError, StopIteration):
            while True:
                lines = self._status.read_text().splitlines()
                peak = next(line for line in lines if line.startswith("VmHWM"))
                self.kilobytes = int(peak.split()[1])
                time.sleep(0.1)


def printed(env: dict[str, str], nodes: Iterable[str]) -> dict[str, Any]:
    """Have nodes print much; return what came of it."""
    nodes = list(nodes)
    chosen = [word for node in nodes for word in ("--node", node)]
    came = {node: hashlib.sha256() for node in nodes}
    size, began = 0, time.monotonic()
    with subprocess.Popen(action(PRINT, *chosen), stdout=subprocess.PIPE, env=env) as process:
        peak = Peak(process.pid)
        lines: Iterable[bytes] = process.stdout or ()
        for line in lines:
            name, _, text = line.partition(b"| ")
            came[name.decode().strip()].update(text)
            size += len(text)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"The action ended with {process.returncode}.")
    told = run(*action("cut -c1-64 ~/digest", *chosen), env=env).splitlines()
    wanted = {name.strip(): digest.strip() for name, digest in (s.split("|") for s in told)}
    same = sum(wanted[node] == came[node].hexdigest() for node in nodes)
    return {
        "nodes": len(nodes), "whole": same, "megabytes": round(size / MEGABYTE),
        "seconds": round(seconds, 1), "peak_megabytes": round(peak.kilobytes * 1024 / MEGABYTE),
    }  # fmt: skip


def lateness(env: dict[str, str], nodes: Iterable[str]) -> float:
    """Return after how many seconds the last of the nodes' lines was seen."""
    chosen = [word for node in nodes for word in ("--node", node)]
    command = action(LATE, *chosen)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        lines: Iterable[str] = process.stdout or ()
        late = [time.time() - float(line.rpartition("|")[2]) for line in lines]
    return round(max(late), 3)


@contextmanager
def cluster(env: dict[str, str], hosts: Hosts, count: int) -> Any:
    """Have a cluster of so many nodes on the laboratory's hosts."""
    home = Path(env["EPIC_HOME"])
    (home / "hosts.yml").write_text(Path(hosts.inventory).read_text(encoding="utf-8"))
    template = home / "bench.yml"
    template.write_text(TEMPLATE.format(workers=count - 1, cores=1, memory="1g"))
    try:
        run(EPIC_RUN, "host", "prepare", env=env)
        run(EPIC_RUN, "launch", str(template), env=env)
        yield
    finally:
        removed(env)


def main() -> None:
    """Run the benchmark."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--nodes", type=int, default=24)
    made.add_argument("--printing", type=int, default=12, help="how many nodes print 100 MB")
    arguments = made.parse_args()
    times: dict[str, list[float]] = {"floor": [], "action": []}
    with own_home() as env:
        hosts = Hosts(env)
        try:
            with cluster(env, hosts, arguments.nodes):
                nodes = containers(hosts)
                for _ in range(arguments.rounds):
                    times["floor"].append(by_hand(hosts, nodes))
                    times["action"].append(acted(env, arguments.nodes))
                workers = [f"worker-{number}" for number in range(1, arguments.printing + 1)]
                late = lateness(env, workers)
                much = printed(env, workers)
        finally:
            hosts.down()
    ratio = median([a / f for a, f in zip(times["action"], times["floor"], strict=True)])
    figures = {kind: median(values) for kind, values in times.items()}
    result = {
        "benchmark": "actions", "load": round(os.getloadavg()[1], 1), "nodes": arguments.nodes,
        "rounds": arguments.rounds, **figures, "ratio": ratio, "late": late, "printed": much,
    }  # fmt: skip
    rows = [
        ["nodes", "floor", "action", "action/floor"],
        [arguments.nodes, figures["floor"], figures["action"], ratio],
        ["", "", "", ""],
        ["printing", "whole", "MB", "seconds", "peak MB", "first line seen after"],
        [much["nodes"], much["whole"], much["megabytes"], much["seconds"],
         much["peak_megabytes"], late],
    ]  # fmt: skip
    report(result, [[*row, "", ""][:6] for row in rows], as_json=arguments.json)


if __name__ == "__main__":
    main()
