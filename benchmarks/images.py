"""An image to the three hosts of scripts/lab: ours against plain docker push and docker pull.

*plain* pushes to a registry like ours and has all hosts pull at once, through the same kind of
forward. Both start with empty hosts and an empty registry. Then a layer of 5 MB is added.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import CATALOG, median, own_home, parser, report, run
from laboratory import ROOT, Hosts

IMAGE = "epic/benchmark:1-r1"
REGISTRY_IMAGE = CATALOG.apps["registry"].reference
REGISTRY = "epic-registry-benchmark"
LAYERS = 6
CHANGE_MB = 5
MB = 10**6


def content(size: int) -> bytes:
    """Return a tar of one file that compresses to a half, as software does."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(f"file-{os.urandom(4).hex()}")
        entry.size = size
        half = os.urandom(512)
        data = b"".join(os.urandom(512) + half for _ in range(size // 1024))
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def add_layer(size: int) -> None:
    """Put a file of `size` bytes onto the image."""
    if not run("docker", "images", "-q", IMAGE).strip():
        subprocess.run(["docker", "import", "-", IMAGE], input=content(size), check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        return
    made = run("docker", "create", IMAGE, "none").strip()
    subprocess.run(["docker", "cp", "-", f"{made}:/"], input=content(size), check=True)
    run("docker", "commit", made, IMAGE)
    run("docker", "rm", made)


@contextmanager
def plain_registry() -> Iterator[int]:
    """Run a registry of the same image, and give its port."""
    name = f"{REGISTRY}-plain"
    run("docker", "run", "-d", "--name", name, "-p", "127.0.0.1::5000",
        "-v", "/var/lib/epic-registry", REGISTRY_IMAGE)  # fmt: skip
    try:
        yield int(run("docker", "port", name).rpartition(":")[2])
    finally:
        run("docker", "rm", "-f", "-v", name)


def plain(hosts: Hosts, port: int) -> float:
    """Push, then pull on all hosts at once; return the seconds."""
    began = time.monotonic()
    name = f"127.0.0.1:{port}/{IMAGE}"
    run("docker", "tag", IMAGE, name)
    try:
        run("docker", "push", name)
    finally:
        run("docker", "rmi", "--no-prune", name)
    with ExitStack() as roads:
        pulls = []
        for address in hosts.addresses:
            road = subprocess.Popen(
                hosts.ssh(address, "cat", "-R", f"127.0.0.1:0:127.0.0.1:{port}"),
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            roads.callback(road.communicate)
            assert road.stderr  # noqa: S101 - for the type checker
            there = re.search(r"port (\d+)", road.stderr.readline())
            if not there:
                raise SystemExit("ssh opened no port.")
            pulls.append(hosts.ssh(address, f"docker pull -q 127.0.0.1:{there[1]}/{IMAGE}"))
        hosts.all_done(pulls)
        return time.monotonic() - began


def ours(hosts: Hosts) -> float:
    """Run the playbook; return the seconds."""
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    variables: dict[str, Any] = {"epic_images": [IMAGE], "epic_registry_container": REGISTRY}
    began = time.monotonic()
    run(playbook, "-i", hosts.inventory, str(ROOT / "playbooks" / "images.yml"),
        "-e", json.dumps(variables), env=hosts.env)  # fmt: skip
    return time.monotonic() - began


def forgotten() -> None:
    """Remove our registry with all that is in it, and the image."""
    for words in (["rm", "-f", "-v", REGISTRY], ["volume", "rm", REGISTRY], ["rmi", "-f", IMAGE]):
        subprocess.run(["docker", *words], check=False, capture_output=True)


def main() -> None:
    """Run the benchmark."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--megabytes", type=int, default=600)
    arguments = made.parse_args()
    figures: dict[str, list[float]] = {
        f"{what}, {who}": []
        for what in ("whole", "changed", "unchanged")
        for who in ("plain", "ours")
    }
    forgotten()
    with own_home() as env:
        hosts = Hosts(env)
        try:
            for number in range(arguments.rounds):
                for _ in range(LAYERS):
                    add_layer(arguments.megabytes * MB // LAYERS)
                # Whoever is second finds a warmer machine: take turns.
                for who in ("ours", "plain") if number % 2 else ("plain", "ours"):
                    with plain_registry() as port:
                        for what in ("whole", "changed", "unchanged"):
                            if what == "changed":
                                add_layer(CHANGE_MB * MB)
                            took = plain(hosts, port) if who == "plain" else ours(hosts)
                            figures[f"{what}, {who}"].append(took)
                    hosts.emptied()
                forgotten()
        finally:
            hosts.down()
            forgotten()
    medians = {name: median(values) for name, values in figures.items()}
    rows = [["", "plain", "ours", "ours / plain"]]
    for what in ("whole", "changed", "unchanged"):
        pair = medians[f"{what}, plain"], medians[f"{what}, ours"]
        rows.append([what, *(f"{value:.2f}" for value in pair), f"{pair[1] / pair[0]:.2f}"])
    result = {
        "benchmark": "images", "megabytes": arguments.megabytes, "change_megabytes": CHANGE_MB,
        "hosts": 3, "seconds": medians,
        "ratio": round(medians["whole, ours"] / medians["whole, plain"], 3),
    }  # fmt: skip
    report(result, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
