"""Clusters spread over several hosts: their life, and the loss and return of a host.

The steps are those of docs/hosts.md: an inventory, `host prepare`, a launch; images come by
themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from laboratory import HOSTS, LAB_ADDRESSES, ROOT, Spread
from life_support import LIMIT_SECONDS, Site, until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("lab")]

# Seconds that people wait at most for a status that tells of a lost host.
STATUS_SECONDS = 30


@pytest.fixture(scope="module", autouse=True)
def wide(spread: Spread) -> None:
    """Have a cluster with nodes on all hosts."""
    # All networks, private ones and the hosts' own too: what is closed of it, the firewall closes.
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    spread.site.egress = {"allow": [*private, LAB_ADDRESSES, "0.0.0.0/0"]}
    spread.site.run("launch", spread.site.template("wide", workers=3))


def test_hosts_are_listed_with_what_is_promised_of_them(spread: Spread) -> None:
    found = {host["name"]: host for host in spread.site.json("host", "list")}
    assert list(found) == HOSTS
    assert {host["state"] for host in found.values()} == {"ready"}
    assert sum(host["nodes"] for host in found.values()) == 4
    assert {host["rack"] for host in found.values()} == {"a", "b"}
    assert all(host["facts"]["swarm"]["state"] == "active" for host in found.values())
    spread.site.run("host", "check")


def test_a_cluster_is_spread_over_hosts_and_its_master_keeps_apart(spread: Spread) -> None:
    places = spread.places("wide")
    assert set(places.values()) == set(HOSTS)
    assert list(places.values()).count(places["master-1"]) == 1
    assert spread.site.status("wide")["health"] == "green"


def test_a_way_between_hosts_that_opens_late_is_waited_for(spread: Spread, third: str) -> None:
    spread.harm(third, "overlay")
    launch = spread.site.begin("launch", spread.site.template("wide", workers=3))
    try:
        assert launch.stdout
        waits = next(line for line in launch.stdout if "waits for an answer" in line)
        spread.mend(third)
        out, err = launch.communicate(timeout=LIMIT_SECONDS)
    finally:
        launch.kill()
    assert launch.returncode == 0, waits + out + err


@pytest.mark.faults
def test_a_way_between_hosts_that_is_closed_is_told_with_its_ports(
    spread: Spread, third: str
) -> None:
    spread.harm(third, "overlay")
    failed = spread.site.run("launch", spread.site.template("wide", workers=3), code=1)
    assert "is 4789/udp open between the two hosts" in failed.err
    assert f" on host {third}" in failed.out


def test_a_job_runs_on_the_workers_of_all_hosts(spread: Spread, tmp_path: Path) -> None:
    job = tmp_path / "where.py"
    job.write_text(
        "import socket, time\n"
        "from pyspark.sql import SparkSession\n"
        "context = SparkSession.builder.getOrCreate().sparkContext\n"
        "def where(_):\n"
        "    time.sleep(0.3)\n"
        "    return socket.gethostname()\n"
        "end = time.monotonic() + 120\n"
        "seen = set()\n"
        "while len(seen) < 3 and time.monotonic() < end:\n"
        "    seen |= set(context.parallelize(range(12), 12).map(where).collect())\n"
        "print('workers:', *sorted(seen))\n",
        encoding="utf-8",
    )
    told = spread.site.run("submit", "wide", str(job)).out
    assert "workers: wide-worker-1 wide-worker-2 wide-worker-3" in told


SLOW = "echo begun; for number in $(seq 12); do sleep 0.5; echo $number; done; echo ended"
SLOWLY = ["begun", *map(str, range(1, 13)), "ended"]


def broken_off(spread: Spread, host: str) -> None:
    """End the ssh by which this site asks a host's engine."""
    name = hashlib.sha256(f"{spread.site.home} {host}".encode()).hexdigest()[:16]
    subprocess.run(["pkill", "-KILL", "-f", f"ssh .*{name}.docker:/"], check=True)


def test_a_job_is_followed_on_when_the_way_to_its_host_breaks_off(
    spread: Spread, tmp_path: Path
) -> None:
    job = tmp_path / "slow.sh"
    job.write_text(SLOW)
    with spread.site.begin("submit", "wide", str(job)) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        broken_off(spread, spread.places("wide")["master-1"])
        out, err = command.communicate(timeout=LIMIT_SECONDS)
    assert command.returncode == 0, err
    assert ["begun", *out.splitlines()] == SLOWLY


def test_a_cluster_of_a_jobs_own_is_on_the_hosts_and_outlives_a_broken_way(
    spread: Spread, tmp_path: Path
) -> None:
    (tmp_path / "slow.sh").write_text(SLOW)
    documents = spread.site.documents("brief", 1, [])
    documents.append(
        {
            "kind": "Job",
            "name": "slow",
            "tenant": spread.site.tenant,
            "cluster": {"template": "brief"},
            "submit": {"file": "slow.sh"},
        }
    )
    (tmp_path / "job.yml").write_text(yaml.safe_dump_all(documents))
    with spread.site.begin("run", str(tmp_path / "job.yml")) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        [job] = spread.site.json("job", "list", "-n", "1")
        broken_off(spread, job["host"])
        out, err = command.communicate(timeout=LIMIT_SECONDS)
    assert command.returncode == 0, err
    assert ["begun", *out.splitlines()] == SLOWLY
    assert [cluster["name"] for cluster in spread.site.json("list")] == ["wide"]


def test_names_lead_to_addresses_and_back_on_every_host(spread: Spread) -> None:
    for node in ("master-1", "worker-1", "worker-2", "worker-3"):
        own = spread.inside(node, "hostname -i").split()[0]
        for other in ("master-1", "worker-3"):
            seen = spread.inside(other, f"getent ahosts wide-{node} | head -1 | cut -d' ' -f1")
            assert seen == own
            back = spread.inside(other, f"getent hosts {own} | awk '{{print $2}}'")
            assert spread.inside(other, f"getent ahosts {back} | head -1 | cut -d' ' -f1") == own


def probed(site: Site, cluster: str, node: str, **wanted: list[str]) -> dict[str, list[str]]:
    """Return what a node reached of what it tried."""
    code = (Path(__file__).parent / "probes.py").read_text(encoding="utf-8")
    told = site.run("shell", cluster, node, "--", "python3", "-c", code, json.dumps(wanted)).out
    found: dict[str, list[str]] = json.loads(told)
    return found


def probed_by_all(
    site: Site, cluster: str, nodes: Iterable[str], **wanted: list[str]
) -> dict[str, dict[str, list[str]]]:
    """Return what each node reached; they try at the same time, since most of it is waiting."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(nodes, pool.map(
            lambda node: probed(site, cluster, node, **wanted), nodes
        ), strict=True))  # fmt: skip


@pytest.fixture
def server(spread: Spread) -> Iterator[str]:
    """A server beyond the hosts, and its address."""
    name = f"epic-{spread.lab}-server"
    subprocess.run(
        ["docker", "run", "--detach", "--name", name, "--label", f"epic.lab={spread.lab}",
         "--network", f"epic-{spread.lab}", "--cap-add", "NET_ADMIN",
         "--entrypoint", "python3", "epic/lab-host:12",
         "-m", "http.server", "8000"],
        check=True, capture_output=True,
    )  # fmt: skip
    found = json.loads(subprocess.run(
        ["docker", "inspect", name], check=True, capture_output=True
    ).stdout)  # fmt: skip
    yield found[0]["NetworkSettings"]["Networks"][f"epic-{spread.lab}"]["IPAddress"]
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


def test_no_probe_of_a_tenant_reaches_another_tenant_or_a_host(
    spread: Spread, server: str, tmp_path: Path
) -> None:
    """From every host, to every host; the same probes reach what they may."""
    other = spread.another(tmp_path)
    # So its nodes are on a bridge, too.
    other.egress = {"allow": ["10.255.255.0/24"]}
    other.run("launch", other.template("theirs", workers=2))
    try:
        theirs = addresses_of(other, "theirs", ("master-1", "worker-1", "worker-2"))
        ours = addresses_of(spread.site, "wide", ("master-1", "worker-1", "worker-2", "worker-3"))
        machines = {host: spread.on(host, "hostname", "-i").split()[0] for host in HOSTS}
        # Addresses that a host has on its own bridges, and those of clouds' metadata.
        closed = [
            *machines.values(), "172.17.0.1", "172.18.0.1", "10.112.0.1", "10.108.0.1",
            "10.108.2.1", "169.254.169.254", "169.254.170.2",
        ]  # fmt: skip
        spread.inside("worker-1", "echo ours > /tenant/ours")
        other.run("shell", "theirs", "worker-1", "--", "bash", "-c", "echo theirs > /tenant/theirs")
        nothing: dict[str, list[str]] = {
            "tcp": [], "udp": [], "ping": [], "names": [], "files": [],
        }  # fmt: skip
        for attacker, cluster, nodes, victim, name, node in (
            (other, "theirs", theirs, spread.site, "wide", ours),
            (spread.site, "wide", ours, other, "theirs", theirs),
        ):
            packets = forged(spread, machines, victim.tenant, node["worker-1"])
            ear = victim.begin("shell", name, "worker-1", "--", "python3", "-c", LISTEN)
            assert ear.stdout
            assert ear.stdout.readline() == "listening\n"
            sent = probed_by_all(attacker, cluster, nodes, vxlan=packets)
            assert sent == {sender: {"vxlan": []} for sender in nodes}
            victim.run("shell", name, "worker-1", "--", "touch", ENOUGH)
            assert ear.communicate()[0] == ""
            wanted = attempts(closed, list(node.values()), victim, name, list(node))
            wanted["files"].append("/tenant/ours" if attacker is other else "/tenant/theirs")
            reached = probed_by_all(attacker, cluster, nodes, **wanted)
            assert reached == dict.fromkeys(nodes, nothing)
        told = {"tcp": [f"{server}:8000"], "ping": [server]}
        allowed = probed_by_all(spread.site, "wide", ours, **told)
        assert allowed == dict.fromkeys(ours, told)
        assert probed(other, "theirs", "worker-1", tcp=[f"{server}:8000"], ping=[server]) == {
            "tcp": [], "ping": [],
        }  # fmt: skip
        seen = probed(
            spread.site, "wide", "worker-1",
            tcp=[f"{ours['master-1']}:7077"], udp=[f"{ours['worker-3']}:9"],
            ping=[ours["master-1"], ours["worker-3"]], names=["wide-worker-3"],
            files=["/tenant/ours"],
        )  # fmt: skip
        assert all(seen.values())
        assert seen["ping"] == [ours["master-1"], ours["worker-3"]]
        # Nor did the attempts leave a neighbour behind that is not of the tenant.
        neighbours = spread.inside(
            "worker-1", "awk 'NR > 1 && $4 != \"00:00:00:00:00:00\" {print $1}' /proc/net/arp"
        ).split()
        assert not set(neighbours) & {*theirs.values(), *machines.values()}
        no_link_is_shared(spread, other)
    finally:
        other.run("destroy", "theirs", "--yes")
        other.run("tenant", "remove", other.tenant, "--yes")


# Until somebody says that it is enough.
ENOUGH = "/tenant/enough"
LISTEN = f"""
import pathlib, socket, time
enough, end = pathlib.Path("{ENOUGH}"), time.monotonic() + 120
enough.unlink(missing_ok=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
    ear.bind(("", 9999))
    ear.settimeout(0.5)
    print("listening", flush=True)
    while not enough.exists() and time.monotonic() < end:
        try:
            print(ear.recv(64).decode())
        except OSError:
            pass
"""


def addresses_of(site: Site, cluster: str, nodes: tuple[str, ...]) -> dict[str, str]:
    """Return the nodes' addresses in the tenant's network."""
    return {
        node: site.run("shell", cluster, node, "--", "hostname", "-i").out.split()[0]
        for node in nodes
    }


def attempts(
    closed: list[str], addresses: list[str], owner: Site, cluster: str, nodes: list[str]
) -> dict[str, list[str]]:
    """Return what a tenant must not reach: hosts, and the nodes of another one."""
    ports = ("22", "80", "2375", "2376", "2377", "4789", "7946", "7077", "8080")
    return {
        "tcp": [f"{to}:{port}" for to in (*closed, *addresses) for port in ports],
        "udp": [
            f"{to}:{port}" for to in (*closed, *addresses) for port in ("53", "4789", "7946", "9")
        ],
        "ping": [*closed, *addresses],
        "names": [
            name for node in nodes for name in (f"{cluster}-{node}", owner.container(node, cluster))
        ],
        "files": ["/var/run/docker.sock", "/run/docker.sock"],
    }


def forged(spread: Spread, machines: dict[str, str], tenant: str, address: str) -> list[str]:
    """Return what the probe `vxlan` takes to put a packet into another tenant's network."""
    network = spread.on(
        "host-1", "docker", "network", "inspect", f"epic_{tenant}", "--format",
        "'{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}'",
    )  # fmt: skip
    return [f"{machine}:{network}:{address}" for machine in machines.values()]


def test_a_new_address_of_a_host_is_closed_to_tenants_with_wide_lists_by_the_next_check(
    spread: Spread,
) -> None:
    nodes = [node for node, host in spread.places("wide").items() if host != "host-2"]
    own = spread.on("host-2", "hostname", "-i").split()[0]
    new = f"{own.rpartition('.')[0]}.201"
    wanted = {"tcp": [f"{new}:22"]}
    spread.within("host-2", f"ip address add {new}/32 dev eth0")
    try:
        # What it is about: nobody has told the hosts' firewalls, and the tenant's list is wide.
        seen = probed_by_all(spread.site, "wide", nodes, **wanted)
        assert seen == dict.fromkeys(nodes, wanted)
        # One host is asked, and all are told.
        spread.site.run("host", "check", "host-2")
        told = probed_by_all(spread.site, "wide", nodes, **wanted)
        assert told == {node: {"tcp": []} for node in nodes}
    finally:
        spread.within("host-2", f"ip address del {new}/32 dev eth0")
    spread.site.run("host", "check")


# What clouds answer metadata on, and an address of no network that is closed (RFC 5737).
METADATA, BEYOND = "169.254.169.254", "203.0.113.5"


def test_metadata_addresses_that_hosts_reach_are_closed_to_nodes_with_a_list_of_everything(
    spread: Spread, server: str
) -> None:
    """A server has both addresses, hosts have routes: the firewall alone tells them apart."""
    addresses = [METADATA, BEYOND]
    for address in addresses:
        subprocess.run(
            ["docker", "exec", f"epic-{spread.lab}-server",
             "ip", "address", "add", f"{address}/32", "dev", "lo"],
            check=True, capture_output=True,
        )  # fmt: skip
    wanted = {"tcp": [f"{address}:8000" for address in addresses], "ping": addresses}
    seen = {"tcp": [f"{BEYOND}:8000"], "ping": [BEYOND]}
    code = shlex.quote((Path(__file__).parent / "probes.py").read_text(encoding="utf-8"))
    try:
        for host in HOSTS:
            for address in addresses:
                spread.within(host, f"ip route add {address}/32 via {server}")
            told = spread.on(host, "python3", "-c", code, shlex.quote(json.dumps(wanted)))
            assert json.loads(told) == wanted
        nodes = list(spread.places("wide"))
        assert probed_by_all(spread.site, "wide", nodes, **wanted) == dict.fromkeys(nodes, seen)
        # Nor where the host itself has the address.
        there = [node for node, host in spread.places("wide").items() if host == "host-2"]
        spread.within("host-2", f"ip route del {METADATA}/32")
        spread.within("host-2", f"ip address add {METADATA}/32 dev lo")
        at_ssh = {"tcp": [f"{METADATA}:22"]}
        told = spread.on("host-2", "python3", "-c", code, shlex.quote(json.dumps(at_ssh)))
        assert json.loads(told) == at_ssh
        reached = probed_by_all(spread.site, "wide", there, **at_ssh)
        assert reached == {node: {"tcp": []} for node in there}
    finally:
        spread.within("host-2", f"ip address del {METADATA}/32 dev lo || true")
        for host in HOSTS:
            for address in addresses:
                spread.within(host, f"ip route del {address}/32 || true")


# What an engine beside Docker makes, whose bridge has a name of its own: a machine behind it, and
# a port of the host that leads there. Docker's own rules know nothing of it.
PUBLISHED = """
setsid unshare --net python3 -m http.server 8000 </dev/null >/dev/null 2>&1 &
behind=$!
echo $behind >/run/behind.pid
ip link add cni0 type bridge
ip address add 10.88.0.1/16 dev cni0
ip link set cni0 up
until [ "$(readlink /proc/$behind/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add behind0 type veth peer name eth0 netns $behind
ip link set behind0 master cni0 up
nsenter -t $behind -n sh -c 'ip address add 10.88.0.2/16 dev eth0; ip link set eth0 up
                             ip route add default via 10.88.0.1'
iptables -t nat -I PREROUTING -p tcp --dport 8099 -m addrtype --dst-type LOCAL \\
    -j DNAT --to-destination 10.88.0.2:8000
iptables -I FORWARD -o cni0 -j ACCEPT
iptables -I FORWARD -i cni0 -j ACCEPT
"""
UNPUBLISHED = """
iptables -D FORWARD -i cni0 -j ACCEPT
iptables -D FORWARD -o cni0 -j ACCEPT
iptables -t nat -D PREROUTING -p tcp --dport 8099 -m addrtype --dst-type LOCAL \\
    -j DNAT --to-destination 10.88.0.2:8000
kill $(cat /run/behind.pid)
ip link del cni0
true
"""


def test_a_port_that_a_host_publishes_past_docker_is_closed_to_nodes_with_a_list_of_everything(
    spread: Spread,
) -> None:
    """The rules see the address behind it, which is of no network that is closed."""
    machines = {host: spread.on(host, "hostname", "-i").split()[0] for host in HOSTS}
    wanted = {"tcp": [f"{address}:8099" for address in machines.values()]}
    code = shlex.quote((Path(__file__).parent / "probes.py").read_text(encoding="utf-8"))
    try:
        for host in HOSTS:
            spread.within(host, PUBLISHED)
        for host, address in machines.items():
            # A host's own packets take another way than those that come in.
            others = {"tcp": [to for to in wanted["tcp"] if to != f"{address}:8099"]}
            told = spread.on(host, "python3", "-c", code, shlex.quote(json.dumps(others)))
            assert json.loads(told) == others
        nodes = list(spread.places("wide"))
        reached = probed_by_all(spread.site, "wide", nodes, **wanted)
        assert reached == {node: {"tcp": []} for node in nodes}
    finally:
        for host in HOSTS:
            spread.within(host, UNPUBLISHED)


def no_link_is_shared(spread: Spread, other: Site) -> None:
    """See by raw sockets, which nodes do not get, that links of a tenant have its nodes alone."""
    places = spread.places("wide")
    ours = links_of(spread.site, "wide", places)
    theirs = links_of(other, "theirs", ("master-1", "worker-1", "worker-2"))
    foreign = [address for links in theirs.values() for address in links]
    assert len(foreign) == 2 * len(theirs)
    tenant = spread.site.tenant
    for host in HOSTS:
        there = [node for node, place in places.items() if place == host]
        # The engine keeps a bridge's nodes from each other, but not what their link answers.
        for network, kind, nodes in ((f"epic_{tenant}", 0, places), (f"epic.{tenant}", 1, there)):
            own = [ours[node][kind] for node in nodes]
            said = from_a_container(spread, host, network, {"arp": [*own, *foreign]})
            assert said == {"arp": own}, (host, network)
    mine = {"arp": [ours["master-1"][0]]}
    assert probed(spread.site, "wide", "worker-1", **mine) == {"arp": []}


def links_of(site: Site, cluster: str, nodes: Iterable[str]) -> dict[str, list[str]]:
    """Return each node's address on the tenant's network, and on its bridge."""
    return {
        node: site.run("shell", cluster, node, "--", "hostname", "-i").out.split()[:2]
        for node in nodes
    }


def from_a_container(
    spread: Spread, host: str, network: str, wanted: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Return what a container with raw sockets reaches, in a network of a host."""
    image = spread.on(host, "docker", "ps", "--format", "'{{.Image}}'", "--filter",
                      f"label=epic.tenant={spread.site.tenant}").split()[0]  # fmt: skip
    code = shlex.quote((Path(__file__).parent / "probes.py").read_text(encoding="utf-8"))
    told = spread.on(
        host, "docker", "run", "--rm", "--network", network, "--cap-add", "NET_RAW",
        "--user", "0", "--entrypoint", "python3", image, "-c", code,
        shlex.quote(json.dumps(wanted)),
    )  # fmt: skip
    found: dict[str, list[str]] = json.loads(told)
    return found


# A resolver on a host's loopback: it knows every name, and notes what it is asked.
RESOLVER = """
import os, pathlib, socket
pathlib.Path("/run/resolver.pid").write_text(str(os.getpid()))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port, open("/run/asked", "wb", 0) as asked:
    port.bind(("127.0.0.1", 53))
    while True:
        question, who = port.recvfrom(512)
        asked.write(question[12:] + bytes([10]))
        end = question.index(bytes(1), 12) + 5
        is_of_ipv4 = question[end - 4:end - 2] == bytes([0, 1])
        answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 5])
        head = bytes([0x81, 0x80, 0, 1, 0, int(is_of_ipv4), 0, 0, 0, 0])
        port.sendto(question[:2] + head + question[12:end] + answer * is_of_ipv4, who)
"""


@pytest.fixture
def resolvers(spread: Spread) -> Iterator[None]:
    """Every host asks a resolver on its loopback, of which Docker learns with each container."""
    kept = {}
    for host in HOSTS:
        kept[host] = spread.on(host, "cat", "/etc/resolv.conf")
        serve = f"setsid python3 -c {shlex.quote(RESOLVER)} </dev/null >/run/resolver.log 2>&1 &"
        # The file is a mount: it is written, not replaced.
        spread.within(host, f"{serve} echo nameserver 127.0.0.1 >/etc/resolv.conf")
        until(lambda: "203.0.113.5" in spread.on(host, "getent ahosts any.test || true"), "it")  # noqa: B023
    yield
    for host, text in kept.items():
        spread.within(
            host, f"kill $(cat /run/resolver.pid); echo {shlex.quote(text)} >/etc/resolv.conf"
        )


@pytest.mark.usefixtures("resolvers")
def test_a_tenant_without_a_way_out_asks_nobody_outside_for_names(
    spread: Spread, tmp_path: Path
) -> None:
    other = spread.another(tmp_path)
    other.egress = "none"
    other.run("launch", other.template("shut", workers=2))
    try:
        nodes = ["master-1", "worker-1", "worker-2"]
        assert {node["host"] for node in other.status("shut")["nodes"]} == set(HOSTS)
        own = {"names": [f"shut-{node}" for node in nodes]}
        assert probed_by_all(other, "shut", nodes, **own) == dict.fromkeys(nodes, own)
        reached = probed_by_all(other, "shut", nodes, names=["secret.leak.test"])
        assert reached == {node: {"names": []} for node in nodes}
        for host in HOSTS:
            # Docker asks for containers where anything is open, so the resolver would be seen.
            wanted = {"names": ["open.test"]}
            bridge = f"epic.{spread.site.tenant}"
            assert from_a_container(spread, host, bridge, wanted) == wanted
            asked = spread.on(host, "tr -cd '[:print:]' </run/asked")
            assert "open" in asked
            assert "leak" not in asked
    finally:
        other.run("destroy", "shut", "--yes")
        other.run("tenant", "remove", other.tenant, "--yes")


def test_a_forged_packet_of_a_host_itself_is_taken_for_one(spread: Spread) -> None:
    """So the probe `vxlan` would be seen, if a tenant's reached a host."""
    address = spread.inside("worker-1", "hostname -i").split()[0]
    machines = {host: spread.on(host, "hostname", "-i").split()[0] for host in HOSTS}
    victim = spread.site.begin("shell", "wide", "worker-1", "--", "python3", "-c", LISTEN)
    assert victim.stdout
    assert victim.stdout.readline() == "listening\n"
    code = (Path(__file__).parent / "probes.py").read_text(encoding="utf-8")
    wanted = json.dumps({"vxlan": forged(spread, machines, spread.site.tenant, address)})
    for _ in range(5):
        for host in HOSTS:
            spread.on(host, "python3", "-c", shlex.quote(code), shlex.quote(wanted))
    spread.inside("worker-1", f"touch {ENOUGH}")
    assert "forged" in victim.communicate()[0]


@pytest.mark.faults
def test_rules_outlast_the_restart_of_a_host_and_of_its_engine(spread: Spread, server: str) -> None:
    [node, *_] = [name for name, host in spread.places("wide").items() if host == "host-3"]
    machines = [spread.on(host, "hostname", "-i").split()[0] for host in HOSTS]
    wanted = {"tcp": [f"{server}:8000", *(f"{machine}:22" for machine in machines)]}
    for restart in (
        lambda: spread.machine("restart", "host-3"),
        lambda: spread.on("host-3", "pkill", "-x", "dockerd"),
    ):
        restart()
        until(lambda: spread.answers("host-3"), "the engine is back", pause=0.5)
        until(lambda: spread.site.status("wide")["health"] == "green", "its nodes are", pause=1.0)
        spread.site.run("host", "check")
        assert probed(spread.site, "wide", node, **wanted) == {"tcp": [f"{server}:8000"]}


@pytest.fixture
def gateway(spread: Spread) -> Iterator[dict[str, Any]]:
    """What is told of a gateway on a host, with the cluster behind it."""
    site = spread.site
    site.run("gateway", "up", "--port", "9443")
    try:
        site.run("repair", "wide")
        yield site.json("gateway", "status")
    finally:
        site.run("gateway", "down", "--yes")
        site.run("repair", "wide")


def test_a_gateway_on_a_host_leads_to_pages_and_nodes_of_all_hosts(
    spread: Spread, gateway: dict[str, Any], tmp_path: Path
) -> None:
    site = spread.site
    assert gateway["host"] == "host-1"
    [page] = [
        item["url"] for item in site.status("wide")["endpoints"] if item["name"] == "spark-master"
    ]
    assert page.startswith(gateway["url"])
    token = site.run("login", "--cluster", "wide", "--token").out.strip()
    ask = ["curl", "-sS", "--max-time", "20", "--cacert", gateway["authority_file"]]
    told = subprocess.run(
        [*ask, "--config", "-", f"{page}json/"], input=f'cookie = "__Secure-epic={token}"',
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout)["aliveworkers"] >= 3
    shut = subprocess.run(
        [*ask, "-o", str(tmp_path / "page"), "-w", "%{http_code}", f"{page}json/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shut.stdout != "200"
    another_tenant_reaches_nothing_of_it(spread, gateway, tmp_path)
    folder = tmp_path / "bobs"
    site.run("login", "bob", "--cluster", "wide", "--ssh", str(folder))
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(2**20))
    nodes = site.status("wide")["nodes"]
    assert len({node["host"] for node in nodes}) == len(HOSTS)
    for name in (f"wide-{node['name']}" for node in nodes):
        said = through(folder, "ssh", name, "id -un; hostname").stdout
        assert said.split() == ["bob", name]
        through(folder, "scp", str(sent), f"{name}:sent")
        back = tmp_path / name
        batch = tmp_path / "batch"
        batch.write_text(f"get sent {back}\nrm sent\n")
        through(folder, "sftp", "-b", str(batch), name)
        assert back.read_bytes() == sent.read_bytes()


def another_tenant_reaches_nothing_of_it(
    spread: Spread, gateway: dict[str, Any], folder: Path
) -> None:
    """See that a gateway is reached from a tenant's own network, and from no other one."""
    other = spread.another(folder)
    other.egress = {"allow": ["0.0.0.0/0"]}
    other.run("launch", other.template("theirs"))
    try:
        details = json.loads(spread.on("host-1", "docker", "inspect", gateway["container"]))
        networks = details[0]["NetworkSettings"]["Networks"]
        own = networks.pop(f"epic_{other.tenant}")["IPAddress"]
        machine = spread.on("host-1", "hostname", "-i").split()[0]
        foreign = [item["IPAddress"] for item in networks.values()]
        assert len(foreign) == 2
        wanted = [f"{own}:8443", *(f"{at}:8443" for at in foreign), f"{machine}:{gateway['port']}"]
        nodes = ["master-1", "worker-1"]
        reached = probed_by_all(other, "theirs", nodes, tcp=wanted)
        assert reached == {node: {"tcp": wanted[:1]} for node in nodes}
        # Nobody of them is led to the other tenant's pages by it either.
        home = f"/{spread.site.tenant}/wide/master-1/spark-master/"
        said = other.run(
            "shell", "theirs", "master-1", "--", "curl", "-sk", "-o", "/dev/null", "-w",
            "%{http_code}", f"https://{own}:8443{home}",
        ).out  # fmt: skip
        assert said in ("401", "403")
    finally:
        other.run("destroy", "theirs", "--yes")
        other.run("tenant", "remove", other.tenant, "--yes")


def through(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ssh or its like as a member with the folder that they were handed."""
    done = subprocess.run(
        [program, "-F", str(folder / "config"), *words], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_ad_hoc_plays_reach_the_nodes_of_all_hosts(spread: Spread) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible"), "-i", str(ROOT / "inventories" / "epic.yml"),
         "wide", "-m", "command", "-a", "hostname"],
        env={**spread.site.environment(), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for node in ("wide-master-1", "wide-worker-1", "wide-worker-2", "wide-worker-3"):
        assert f"\n{node}\n" in done.stdout


def test_declared_actions_run_on_the_nodes_of_all_hosts(spread: Spread) -> None:
    path = Path(spread.site.template("wide", workers=3))
    *others, template = yaml.safe_load_all(path.read_text())
    template["actions"] = [{"command": "echo $EPIC_NODE >>/data/had", "sudo": True}]
    path.write_text(yaml.safe_dump_all([*others, template]))
    for _ in range(2):
        spread.site.run("launch", str(path))
    (declared,) = spread.site.status("wide")["actions"]
    assert {node["state"] for node in declared["nodes"].values()} == {"done"}
    had = spread.site.run("action", "run", "wide", "--command", "cat /data/had").out
    nodes = list(spread.places("wide"))
    assert sorted(line.split(" | ")[1] for line in had.splitlines()) == sorted(nodes)


def test_an_action_on_a_host_that_is_lost_is_unknown_and_never_a_success(
    spread: Spread, third: str
) -> None:
    there = [node for node, host in spread.places("wide").items() if host == third]
    line = f"echo begun; case $EPIC_NODE in {'|'.join(there)}) sleep 300 ;; esac"
    process = spread.site.begin("action", "run", "wide", "--command", line, "--as", "bob")
    try:
        assert process.stdout
        for _ in spread.places("wide"):
            assert "begun" in process.stdout.readline()
        spread.harm(third, "kill")
        process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    listed = spread.site.json("action", "list", "wide")
    record = next(item for item in listed if item["user"] == "bob")
    assert record["state"] == "failed"
    states = {node: of["state"] for node, of in record["nodes"].items()}
    assert states == {node: "unknown" if node in there else "done" for node in states}


def test_a_cluster_that_is_used_on_no_host_ends_and_comes_back_with_addresses_and_data(
    spread: Spread,
) -> None:
    site = spread.site
    before = spread.inside("worker-1", "echo kept > ~/note; hostname -i").split()[0]
    lasting = site.template("wide", workers=3)
    documents = site.documents("wide", 3, [])
    documents[-1]["lifetime"] = {"max_idle": "5s", "warn": "2s"}
    brief = site.folder / "brief.yml"
    brief.write_text(yaml.safe_dump_all(documents))
    site.run("launch", str(brief))

    def outcome() -> str:
        swept = {item["name"]: item["outcome"] for item in site.json("lifetime", "sweep")}
        return str(swept["wide"])

    # On one node of one host, without a sign of it anywhere else.
    on = ["--node", "worker-2", "--background", "--command", "sleep 600"]
    action = site.run("action", "run", "wide", *on).out.split()[-1]
    # The limit itself has to pass; then it is the action, and no doubt, that keeps the cluster.
    time.sleep(6)
    assert outcome() == "kept"
    [seen] = site.json("lifetime", "check", "wide")
    assert (seen["idle_seconds"], seen["doubt"]) == (0, "")
    site.run("action", "cancel", action)
    until(lambda: outcome() == "stopped", "the end", pause=1)
    assert site.status("wide")["health"] == "green"
    site.run("start", "wide")
    site.run("launch", lasting)
    assert spread.inside("worker-1", "cat ~/note; hostname -i").split()[:2] == ["kept", before]


def test_a_lost_store_is_rebuilt_with_the_addresses_of_all_hosts(spread: Spread) -> None:
    site, kept = spread.site, spread.site.folder / "kept"
    nodes = tuple(spread.places("wide"))
    before = addresses_of(site, "wide", nodes), spread.places("wide"), ids(spread)
    kept.mkdir()
    for path in site.home.glob("store.db*"):
        path.rename(kept / path.name)
    try:
        site.run("host", "check")
        found = site.json("repair", f"{site.tenant}/wide")
        assert found["recovered"] == [f"{site.tenant}/wide"]
        # None was made anew, as it would be with another address.
        assert (addresses_of(site, "wide", nodes), spread.places("wide"), ids(spread)) == before
        assert site.status("wide")["health"] == "green"
        planned = site.json("plan", site.template("wide", workers=3))["nodes"]
        assert {node["action"] for node in planned} == {"keep"}
    finally:
        # Others go on with what the store knew beside the cluster.
        for path in site.home.glob("store.db*"):
            path.unlink()
        for path in kept.iterdir():
            path.rename(site.home / path.name)


def ids(spread: Spread) -> list[set[str]]:
    """Return the ids of the cluster's containers on each host."""
    wanted = f"label=epic.tenant={spread.site.tenant}"
    ask = ("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", wanted)
    return [set(spread.on(host, *ask).split()) for host in HOSTS]


def test_a_drained_host_gives_its_workers_away_and_takes_no_new_ones(spread: Spread) -> None:
    leaving = [name for name, host in spread.places("wide").items() if host == "host-3"]
    assert leaving
    told = spread.site.json("host", "drain", "host-3")
    assert told["left"] == [name for name in told["left"] if "master" in name]
    spread.site.run("expand", "wide", "--by", "1")
    assert "host-3" not in [
        host for name, host in spread.places("wide").items() if name != "master-1"
    ]
    assert spread.site.status("wide")["health"] == "green"
    spread.site.run("host", "drain", "host-3", "--undo")
    spread.site.run("expand", "wide", "--by", "1")
    assert "host-3" in spread.places("wide").values()


def test_the_loss_of_a_host_is_told_in_time_and_made_good_elsewhere(
    spread: Spread, third: str
) -> None:
    others = spread.site.template("other", workers=1)
    lost = [name for name, host in spread.places("wide").items() if host == third]
    assert lost
    spread.machine("kill", third)
    began = time.monotonic()
    status = spread.site.status("wide")
    assert time.monotonic() - began < STATUS_SECONDS
    assert status["health"] in ("yellow", "red")
    assert third in status["reason"]
    # What begins now finishes on the hosts that are there.
    spread.site.run("launch", others)
    assert third not in spread.places("other").values()
    # Without being told that the host is gone for good, its nodes are waited for.
    refused = spread.site.run("repair", "wide", code=1)
    assert f"epic-run host drain {third} --lost" in refused.err
    spread.site.run("host", "drain", third, "--lost")
    status = spread.site.status("wide")
    assert status["health"] == "green"
    assert third not in [node["host"] for node in status["nodes"]]

    # It comes back with what it had: containers go, volumes stay.
    spread.machine("start", third)
    until(lambda: spread.answers(third), "the host is back", pause=0.5)
    assert spread.containers(third)
    volumes = spread.on(third, "docker", "volume", "ls", "-q")
    told = spread.site.json("host", "drain", third, "--undo")
    assert told["cleaned"] == [f"{spread.site.tenant}/wide"]
    assert spread.containers(third) == []
    assert spread.on(third, "docker", "volume", "ls", "-q") == volumes
    assert spread.site.status("wide")["health"] == "green"
    spread.site.run("destroy", "other", "--yes")


def test_a_host_that_restarts_brings_its_nodes_back_by_itself(spread: Spread, third: str) -> None:
    spread.site.run("expand", "wide", "--by", "2")
    assert third in spread.places("wide").values()
    spread.machine("restart", third)
    until(lambda: spread.site.status("wide")["health"] == "green", "all nodes are back", pause=1.0)


@pytest.mark.parametrize("how", ["pause", "hang", pytest.param("cut", marks=pytest.mark.faults)])
def test_a_host_that_hangs_is_told_in_time_and_all_is_well_when_it_is_back(
    spread: Spread, third: str, how: str
) -> None:
    # The shared connection of ssh is up, and hangs with the host.
    assert spread.site.status("wide")["health"] == "green"
    spread.harm(third, how)
    began = time.monotonic()
    status = spread.site.status("wide")
    assert time.monotonic() - began < STATUS_SECONDS
    assert status["health"] in ("yellow", "red")
    assert f"Docker on host {third} does not answer" in status["reason"]
    began = time.monotonic()
    logs = spread.site.run("logs", "wide", "--lines", "1")
    assert f"Docker on host {third} does not answer" in logs.err
    assert "==> wide-master-1 spark-master <==" in logs.out
    listed = spread.site.run("list")
    assert f"Docker on host {third} does not answer" in listed.err
    assert time.monotonic() - began < 2 * STATUS_SECONDS
    spread.mend(third)
    until(lambda: spread.site.status("wide")["health"] == "green", "all nodes are back", pause=1.0)


def test_a_host_with_nodes_is_not_removed_and_one_without_is(spread: Spread, third: str) -> None:
    refused = spread.site.run("host", "remove", third, code=2)
    assert f"Host {third} still has nodes of wide" in refused.err
    spread.site.run("host", "drain", third)
    assert third not in spread.places("wide").values()
    spread.site.run("host", "remove", third)
    states = {host["name"]: host["state"] for host in spread.site.json("host", "list")}
    assert states == {"host-1": "ready", "host-2": "ready", third: "unknown"}
    # Prepared again, it takes nodes as before.
    spread.site.run("host", "prepare")
    assert {host["state"] for host in spread.site.json("host", "list")} == {"ready"}


def test_a_destroyed_cluster_leaves_nothing_on_any_host(spread: Spread) -> None:
    spread.site.run("destroy", "wide", "--yes")
    for host in HOSTS:
        assert spread.containers(host) == []
        wanted = f"label=epic.tenant={spread.site.tenant}"
        volumes = spread.on(host, "docker", "volume", "ls", "--filter", wanted, "-q").split()
        # Also of the nodes that were lost with their host, and came back with it.
        assert set(volumes) <= {f"epic.{spread.site.tenant}.storage"}
    spread.site.run("tenant", "remove", spread.site.tenant, "--yes")
    networks = spread.on("host-1", "docker", "network", "ls", "--format", "'{{.Name}}'")
    assert f"epic_{spread.site.tenant}" not in networks.split()
