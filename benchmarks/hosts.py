"""Containers on the three hosts of scripts/lab: the role `node` against plain ssh.

floor   one ssh a host, which runs `docker run` for its containers, four at once
play    ansible-playbook with the role `node`: one call of its module a host
empty   a play on the same hosts that only asks each for its name: the start of Ansible

All containers are of the image base, without services, with the same limits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common import median, own_home, parser, report
from laboratory import ROOT, Hosts

BASE = "epic/base:12-r4"
LABEL = "epic.tenant=benchmark"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
LIMITS = "--cpus 1 --memory 128m --memory-swap 128m --pids-limit 256"
# Another address for each host's bridge than that of the hosts themselves.
NETWORK = "epic.benchmark"


def bring_image(hosts: Hosts) -> None:
    """Load the image on all hosts."""
    with TemporaryDirectory() as folder:
        file = f"{folder}/base.tar"
        subprocess.run(["docker", "save", "-o", file, BASE], check=True)
        for address in hosts.addresses:
            with Path(file).open("rb") as stream:
                subprocess.run(
                    hosts.ssh(address, "docker load"), stdin=stream, check=True,
                    stdout=subprocess.DEVNULL,
                )  # fmt: skip


def removed(hosts: Hosts) -> None:
    """Remove what a round made."""
    hosts.at_once(
        f"docker ps -aq --filter label={LABEL} | xargs -r docker rm -f -v >/dev/null;"
        f"docker volume ls -q --filter label={LABEL} | xargs -r docker volume rm >/dev/null;"
        f"docker network ls -q --filter label={LABEL} | xargs -r docker network rm >/dev/null"
    )


def by_hand(hosts: Hosts, count: int) -> float:
    """Run containers by one ssh a host; return the seconds."""
    each = count // len(hosts.addresses)
    line = (
        f"docker network create --label {LABEL} {NETWORK} >/dev/null;"
        f"seq {each} | xargs -P4 -I NUMBER docker run -d --label {LABEL} --name bench-NUMBER "
        f"--network {NETWORK} {LIMITS} --entrypoint sleep {BASE} infinity >/dev/null"
    )
    began = time.monotonic()
    hosts.at_once(line)
    return time.monotonic() - began


def played(hosts: Hosts, folder: Path, roles: str, count: int) -> float:
    """Run a play of some roles or tasks on the hosts; return the seconds."""
    names = [f"host-{number}" for number in range(1, len(hosts.addresses) + 1)]
    nodes = [
        {
            "name": f"bench-node-{number}", "short_name": f"node-{number}", "role": "node",
            "container": f"epic.benchmark.bench.node-{number}", "index": number, "ports": [],
            "host": names[number % len(names)],
        }
        for number in range(1, count + 1)
    ]  # fmt: skip
    variables = {
        "node_cluster": "bench", "node_tenant": "benchmark", "node_network": {"name": NETWORK},
        "node_nodes": nodes,
        "node_roles": {
            "node": {
                "image": BASE, "cores": 1, "memory_bytes": 2**27, "pids_limit": 256,
                "services": [],
            }
        },
    }  # fmt: skip
    (folder / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
    (folder / "play.yml").write_text(f"- hosts: docker_hosts\n{roles}", encoding="utf-8")
    began = time.monotonic()
    done = subprocess.run(
        [str(PLAYBOOK), "-i", hosts.inventory, "-e", f"@{folder}/variables.json",
         "--skip-tags", "always", str(folder / "play.yml")],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
             "ANSIBLE_ROLES_PATH": str(ROOT / "roles")},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - began


def main() -> None:
    """Run the benchmark."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--counts", type=int, nargs="+", default=[12, 48])
    arguments = made.parse_args()
    result: dict[str, dict[str, float]] = {}
    with own_home() as env, TemporaryDirectory() as name:
        folder = Path(name)
        hosts = Hosts(env)
        try:
            bring_image(hosts)
            for count in arguments.counts:
                times: dict[str, list[float]] = {"floor": [], "play": [], "empty": []}
                for _ in range(arguments.rounds):
                    times["floor"].append(by_hand(hosts, count))
                    removed(hosts)
                    times["empty"].append(
                        played(hosts, folder, "  tasks: [{ansible.builtin.raw: hostname}]\n", count)
                    )
                    times["play"].append(played(hosts, folder, "  roles: [{role: node}]\n", count))
                    removed(hosts)
                figures = {kind: median(values) for kind, values in times.items()}
                figures["play_to_floor"] = round(figures["play"] / figures["floor"], 2)
                figures["without_start"] = round(
                    (figures["play"] - figures["empty"]) / figures["floor"], 2
                )
                result[str(count)] = figures
        finally:
            hosts.down()
    heads = ["containers", "floor", "empty play", "play", "play/floor", "(play-empty)/floor"]
    rows = [
        [count, f["floor"], f["empty"], f["play"], f["play_to_floor"], f["without_start"]]
        for count, f in result.items()
    ]
    report({"benchmark": "hosts", "rounds": arguments.rounds, **result}, [heads, *rows],
           as_json=arguments.json)  # fmt: skip


if __name__ == "__main__":
    main()
