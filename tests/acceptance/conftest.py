"""Clusters that several test files work on; they last as long as the tests of their process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import life_support
import pytest
import yaml
from laboratory import Spread
from life_support import Result, Site

# A shell that starts the tests in the background has them ignore SIGINT, and their children too:
# but Ctrl-C is one of the things that are tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A job on a machine that others use as well may take minutes.
JOB_SECONDS = 840

# Groups of tests of a minute and a half or more, by `scripts/test acceptance -- --durations=0`.
LONGEST_FIRST = (
    "lab",
    "test_gateway",
    "test_lifetime",
    "test_schedules",
    "test_life_killed",
    "test_life",
    "test_work",
    "test_pipeline",
    "test_connections",
)


# First, since the plugin that spreads tests over processes reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one process run all tests of a file, which share clusters, or of a group of files."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    # One that begins last goes on alone when all others have ended, on one of the machine's cores.
    items.sort(key=lambda item: _turn(item.get_closest_marker("xdist_group").args[0]))


def _turn(group: str) -> int:
    return LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its site and its name."""

    site: Site
    name: str

    def run(self, verb: str, *arguments: str, code: int = 0, given: str = "") -> Result:
        """Run `epic-run VERB CLUSTER ARGUMENT...` with `given` as its input."""
        process = self.begin(verb, *arguments)
        try:
            out, err = process.communicate(given, timeout=JOB_SECONDS)
        finally:
            process.kill()
        assert process.returncode == code, (
            f"epic-run {verb} {self.name} {' '.join(arguments)} ended with {process.returncode}\n"
            f"{out}\n{err}"
        )
        assert code != 0 or "Traceback" not in out + err
        return Result(process.returncode, out, err)

    def begin(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        """Start `epic-run VERB CLUSTER ARGUMENT...` with its input and output in pipes."""
        return self.site.begin(verb, self.name, *arguments, stdin=subprocess.PIPE)

    def endpoint(self, name: str) -> str:
        """Return the address of an endpoint."""
        status = self.site.json("status", self.name)
        return next(item["url"] for item in status["endpoints"] if item["name"] == name)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters of one tenant, launched at the same time.

    The first one has JupyterLab, the second one the history server.
    """
    with life_support.site(tmp_path_factory.mktemp("work")) as site:
        templates = [
            site.template("one", services=["jupyter"]),
            site.template("two", services=["spark-history"]),
        ]
        launches = [site.begin("launch", template) for template in templates]
        for launch in launches:
            out, err = launch.communicate(timeout=life_support.LIMIT_SECONDS)
            assert launch.returncode == 0, out + err
        yield Cluster(site, "one"), Cluster(site, "two")


@pytest.fixture(scope="session")
def cluster(pair: tuple[Cluster, Cluster]) -> Cluster:
    """A cluster with JupyterLab and one worker."""
    return pair[0]


@pytest.fixture(scope="session")
def other(pair: tuple[Cluster, Cluster]) -> Cluster:
    """Another cluster of the same tenant, with one worker."""
    return pair[1]


@pytest.fixture(scope="session")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """A laboratory whose hosts are prepared; clusters are the tests' own."""
    with life_support.site(tmp_path_factory.mktemp("spread")) as site:
        made = Spread(site, site.tenant.replace("-", ""))
        made.call("up")
        try:
            inventory = yaml.safe_load(Path(made.call("inventory")).read_text(encoding="utf-8"))
            (site.home / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
            site.run("host", "prepare")
            yield made
        finally:
            made.call("down")


@pytest.fixture
def third(spread: Spread) -> Iterator[str]:
    """host-3, which is well again after the test."""
    yield "host-3"
    spread.mend("host-3")
