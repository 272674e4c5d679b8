"""How long the command line takes to answer: `epic-run --help`, and `list` with a cluster."""

from __future__ import annotations

import subprocess
import time
from tempfile import NamedTemporaryFile

from common import EPIC_RUN, median, own_home, report
from common import parser as options
from launch import TEMPLATE


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Return how long a command takes."""
    start = time.monotonic()
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> None:
    """Run the benchmark."""
    arguments = options(__doc__, rounds=15).parse_args()
    with own_home() as env, NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(TEMPLATE.format(workers=1, cores=1, memory="1g"))
        file.flush()
        seconds([EPIC_RUN, "launch", file.name], env)
        try:
            figures = {
                name: median([seconds([EPIC_RUN, name], env) for _ in range(arguments.rounds)])
                for name in ("--help", "list")
            }
        finally:
            seconds([EPIC_RUN, "destroy", "bench", "--yes"], env)
            seconds([EPIC_RUN, "tenant", "remove", "benchmark", "--yes"], env)
    rows = [["command", "seconds"], *([f"epic-run {name}", took] for name, took in figures.items())]
    report({"benchmark": "cli", **figures}, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
