"""The tenants' network across hosts against the hosts' own, on the hosts of scripts/lab.

underlay   one TCP connection from a container in the network of one host to one in that of another
overlay    the same, both containers on an overlay like that of a tenant

Sender and receiver are the same few lines in containers of the image base; they take turns, so that
whatever else the machine does falls on both. The goal is 90 % of the underlay.

Both hosts are on this machine, where a packet is a pointer that is passed on, at more than any
network card's rate: without a limit the ratio is one of processor time. So the pairs are timed
twice, the second time with the hosts' own links held to the rate of a real one, which counts every
header.
"""

from __future__ import annotations

import os
import subprocess

from common import EPIC_RUN, median, own_home, parser, report, run, wait_for
from hosts import BASE, bring_image
from laboratory import Hosts

NETWORK = "epic_benchmark"
PORT = 5201
GIGABIT = 1e9
RECEIVE = f"""
import socket
with socket.create_server(("", {PORT})) as door:
    while True:
        way, _ = door.accept()
        with way:
            room = memoryview(bytearray(1 << 20))
            while way.recv_into(room):
                pass
            way.sendall(b"!")
"""
SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as way:
    way.settimeout(60)
    data = memoryview(bytes(1 << 20))
    sent, began = 0, time.monotonic()
    while time.monotonic() - began < float(sys.argv[3]):
        way.sendall(data)
        sent += len(data)
    way.shutdown(socket.SHUT_WR)
    way.recv(1)
    print(sent * 8 / (time.monotonic() - began))
"""


def started(hosts: Hosts, host: int, name: str, network: str, program: str) -> None:
    """Start a container on a host that runs a program of Python."""
    at = hosts.addresses[host]
    run(*hosts.ssh(at, f"cat >/root/{name}.py <<'END'\n{program}\nEND"))
    run(*hosts.ssh(
        at, f"docker run -d --name {name} --network {network} -v /root/{name}.py:/program.py:ro "
        f"--entrypoint python3 {BASE} /program.py"
    ))  # fmt: skip


def rate(hosts: Hosts, sender: str, address: str, seconds: float) -> float:
    """Send for some seconds; return the bits per second."""
    command = f"docker exec {sender} python3 /send.py {address} {PORT} {seconds}"
    return float(run(*hosts.ssh(hosts.addresses[0], command)))


def listens(hosts: Hosts, sender: str, address: str) -> bool:
    """Whether the receiver is reached."""
    command = hosts.ssh(
        hosts.addresses[0], f"docker exec {sender} epic-wait tcp {address} {PORT} --timeout 1"
    )
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def hold_links(hosts: Hosts, gigabits: float) -> None:
    """Hold what every host sends to a rate, as its network card would."""
    hosts.at_once(f"tc qdisc add dev eth0 root tbf rate {gigabits}gbit burst 4mb latency 5ms")


def summary(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians in Gbit/s, and that of the pairs' ratios."""
    pairs = zip(rates["underlay"], rates["overlay"], strict=True)
    return {
        **{kind: median([value / GIGABIT for value in found]) for kind, found in rates.items()},
        "share": median([overlay / underlay for underlay, overlay in pairs]),
    }


def main() -> None:
    """Run the benchmark."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--seconds", type=float, default=5.0, help="how long each round sends")
    made.add_argument(
        "--link", type=float, default=10.0, help="Gbit/s of the hosts' links, if held"
    )
    arguments = made.parse_args()
    held = f"links of {arguments.link:g} Gbit/s"
    rates: dict[str, dict[str, list[float]]] = {
        "no limit": {"underlay": [], "overlay": []},
        held: {"underlay": [], "overlay": []},
    }
    with own_home() as env:
        hosts = Hosts(env)
        try:
            site = {**os.environ, **hosts.env, "EPIC_INVENTORY": hosts.inventory}
            run(EPIC_RUN, "host", "prepare", env=site)
            bring_image(hosts)
            first, second = hosts.addresses[:2]
            run(*hosts.ssh(
                first, f"docker network create -d overlay --attachable --internal {NETWORK}"
            ))  # fmt: skip
            targets = {}
            for kind, network in (("underlay", "host"), ("overlay", NETWORK)):
                started(hosts, 0, f"send-{kind}", network, "import time\ntime.sleep(1e6)")
                started(hosts, 1, f"receive-{kind}", network, RECEIVE)
                run(*hosts.ssh(
                    first, f"docker exec -i send-{kind} tee /send.py <<'END'\n{SEND}\nEND"
                ))  # fmt: skip
                targets[kind] = second if kind == "underlay" else f"receive-{kind}"
                wait_for(lambda kind=kind: listens(hosts, f"send-{kind}", targets[kind]))
            for limit, found in rates.items():
                if limit == held:
                    hold_links(hosts, arguments.link)
                for _ in range(arguments.rounds):
                    for kind, target in targets.items():
                        found[kind].append(rate(hosts, f"send-{kind}", target, arguments.seconds))
        finally:
            hosts.down()
    figures = {limit: summary(found) for limit, found in rates.items()}
    heads = ["Gbit/s", "underlay", "overlay", "overlay/underlay, median of pairs"]
    rows = [[limit, *values.values()] for limit, values in figures.items()]
    report(
        {"benchmark": "network", "rounds": arguments.rounds, **figures}, [heads, *rows],
        as_json=arguments.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
