"""What the benchmarks share: running, timing, waiting, and saying what came out."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from epic_runner.catalog import load_catalog
from epic_runner.resources import content_root

CATALOG = load_catalog(content_root() / "images")
IMAGE = CATALOG.apps["spark"].reference
EPIC_RUN = str(Path(sys.executable).parent / "epic-run")
LIMIT_SECONDS = 300
LABEL = "epic.benchmark=true"

# One master and some workers, with the tenant and the flavor that they need.
TEMPLATE = """\
kind: Flavor
name: bench
cores: {cores}
memory: {memory}
---
kind: Tenant
name: benchmark
members: [{{user: ada, role: admin}}]
---
kind: Template
name: bench
tenant: benchmark
app: spark
roles:
  master: {{count: 1, flavor: bench}}
  worker: {{count: {workers}, flavor: bench}}
"""


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    # A benchmark that is told to end removes what it made, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=rounds, help="how often each is timed")
    made.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    return made


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; raise if it failed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


@contextmanager
def own_home() -> Iterator[dict[str, str]]:
    """Give an environment with an EPIC_HOME of its own, which is removed afterwards."""
    with TemporaryDirectory(prefix="epic-benchmark-") as home:
        yield {**os.environ, "EPIC_HOME": home}


def removed(env: Mapping[str, str]) -> None:
    """Remove the cluster of TEMPLATE, its tenant and what they left, launched or half launched."""
    for words in (["destroy", "bench"], ["tenant", "remove", "benchmark"]):
        subprocess.run([EPIC_RUN, *words, "--yes"], check=False, env=env, capture_output=True)


def address_of(container: str) -> str:
    """Return a container's address on its only network."""
    found = json.loads(run("docker", "inspect", container))[0]["NetworkSettings"]["Networks"]
    return str(next(iter(found.values()))["IPAddress"])


def alive_workers(url: str) -> int:
    """Return how many workers a master knows to be alive; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return int(json.load(answer)["aliveworkers"])
    except (OSError, ValueError):
        return 0


def wait_for(what: Callable[[], bool], pause: float = 0.02) -> float:
    """Wait until something holds and return the moment, by the monotonic clock."""
    end = time.monotonic() + LIMIT_SECONDS
    while not what():
        if time.monotonic() > end:
            raise SystemExit(f"Nothing came of it within {LIMIT_SECONDS} s.")
        time.sleep(pause)
    return time.monotonic()


def median(values: Sequence[float]) -> float:
    """Return the median, rounded to milliseconds."""
    return round(statistics.median(values), 3)


def report(result: Mapping[str, Any], rows: Sequence[Sequence[object]], *, as_json: bool) -> None:
    """Print a result for programs, or as a table for people."""
    if as_json:
        print(json.dumps(result))
        return
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    for row in texts:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
