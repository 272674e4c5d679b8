"""What the tests of a cluster's life share: a site of their own, commands cut off, Docker's view.

A site is an `EPIC_HOME` and a tenant whose name nobody else uses, so that test files run beside
one another on one engine, and whatever a failed test leaves is found by the tenant's label.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

# Generous: several suites and other people's work may share two cores.
LIMIT_SECONDS = 300
POLL_SECONDS = 0.02
# The container that keeps the rules of all tenants of an engine.
FIREWALL = "epic-firewall"

# Of tests that mount this Python's packages into a container, whose Python has to be the same.
DEBIANS_PYTHON = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the container's Python is Debian 12's"
)

Value = TypeVar("Value")


def until(
    look: Callable[[], Value], what: str, *, seconds: float = LIMIT_SECONDS, pause: float = 0.1
) -> Value:
    """Look again and again until there is something true, and return it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return found


@dataclass
class Result:
    """What a command ended with."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """A tenant and a state folder of a test's own.

    Attributes:
        folder: Where its files go.
        docker_host: The engine's address; the machine's own one if empty.
        within: What commands are started by, to be where that engine's ports are.
        egress: What the tenant may reach outside; what the product opens by itself if None.
        variables: More of the environment of commands, such as `EPIC_DATABASE_URL`.
    """

    folder: Path
    docker_host: str = ""
    within: tuple[str, ...] = ()
    tenant: str = field(
        default_factory=lambda: (
            f"{os.environ.get('EPIC_TEST_PREFIX', 'test')}-{secrets.token_hex(3)}"
        )
    )
    members: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"user": "ada", "role": "admin", "sudo": True},
            {"user": "bob", "role": "member"},
        ]
    )
    quota: dict[str, Any] = field(default_factory=dict)
    egress: Any = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The EPIC_HOME."""
        return self.folder / "home"

    # -- files -------------------------------------------------------------------------------

    def documents(self, name: str, workers: int, services: list[str]) -> list[dict[str, Any]]:
        """Return a flavor, the tenant and a template of one master and some workers."""
        roles: dict[str, Any] = {
            "master": {"count": 1, "flavor": "tiny"},
            "worker": {"count": workers, "flavor": "tiny"},
        }
        if services:
            # A notebook needs more memory than the other nodes.
            roles["master"] |= {"services": services, "flavor": "small"}
        return [
            {"kind": "Flavor", "name": "tiny", "cores": 1, "memory": "1g"},
            {
                "kind": "Tenant",
                "name": self.tenant,
                "members": self.members,
                "quota": self.quota,
                **({"egress": self.egress} if self.egress is not None else {}),
            },
            {
                "kind": "Template",
                "name": name,
                "tenant": self.tenant,
                "app": "spark",
                "roles": roles,
            },
        ]

    def template(
        self, name: str = "lab", workers: int = 1, services: list[str] | None = None
    ) -> str:
        """Write a template's file and return its path."""
        path = self.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump_all(self.documents(name, workers, services or [])))
        return str(path)

    # -- commands ------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Return the environment of commands."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("EPIC_DATABASE_URL", "EPIC_OUTPUT", "DOCKER_HOST")
            and not name.startswith("EPIC_VAULT_")
        }
        named = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        # Processes that test at once do not take the ports of each other's stopped clusters.
        process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first = 20000 + 1000 * (process % 10)
        named["EPIC_PORTS"] = f"{first}-{first + 999}"
        return {**kept, "EPIC_HOME": str(self.home), **named, **self.variables}

    def begin(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start `epic-run ARGUMENT...` with its output in pipes."""
        return subprocess.Popen(
            [*self.within, sys.executable, "-u", "-m", "epic_runner", *arguments],
            env=self.environment(),
            cwd=self.folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int | None = 0) -> Result:
        """Run `epic-run ARGUMENT...`; its exit code has to be `code`, unless that is None."""
        process = self.begin(*arguments)
        try:
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
        assert code in (None, process.returncode), (
            f"epic-run {' '.join(arguments)} ended with {process.returncode}\n{out}\n{err}"
        )
        assert "Traceback" not in out + err
        return Result(process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        """Run `epic-run ARGUMENT... --output json` and return what it says."""
        return json.loads(self.run(*arguments, "--output", "json").out)

    def cut_off(
        self, when: str | Callable[[], Any], *arguments: str, with_signal: int = signal.SIGKILL
    ) -> Result:
        """Run a command and send it a signal at some point.

        Args:
            when: A piece of a line of its output, or a function that tells that it is time.
            arguments: The command.
            with_signal: The signal.
        """
        process = self.begin(*arguments)
        seen = ""
        assert process.stdout is not None
        try:
            if isinstance(when, str):
                for line in process.stdout:
                    seen += line
                    if when in line:
                        break
                else:
                    errors = process.stderr.read() if process.stderr else ""
                    raise AssertionError(f"{when!r} was never said:\n{seen}{errors}")
            else:
                until(
                    lambda: when() or process.poll() is not None,
                    "the moment to cut off",
                    pause=POLL_SECONDS,
                )
                assert process.poll() is None, f"{arguments} ended before it was cut off"
            process.send_signal(with_signal)
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
        return Result(process.returncode, seen + out, err)

    # -- what is there -------------------------------------------------------------------------

    def docker(self, *arguments: str) -> str:
        """Run `docker ARGUMENT...` and return its output."""
        at = ["--host", self.docker_host] if self.docker_host else []
        done = subprocess.run(
            ["docker", *at, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def labelled(self, kind: str) -> list[str]:
        """Return the containers, networks or volumes of the tenant."""
        listing = {"container": ["ps", "--all"]}.get(kind, [kind, "ls"])
        wanted = f"label=epic.tenant={self.tenant}"
        return self.docker(*listing, "--quiet", "--filter", wanted).split()

    def nodes(self, cluster: str = "lab") -> dict[str, dict[str, Any]]:
        """Return what Docker knows of a cluster's containers, by the nodes' short names."""
        of = [f"label=epic.tenant={self.tenant}", f"label=epic.cluster={cluster}"]
        found = self.docker(
            "ps", "--all", "--quiet", "--no-trunc", *(f"--filter={item}" for item in of)
        ).split()
        details = json.loads(self.docker("inspect", *found)) if found else []
        prefix = f"/epic.{self.tenant}.{cluster}."
        return {item["Name"].removeprefix(prefix): item for item in details}

    def running(self, cluster: str = "lab") -> list[str]:
        """Return the short names of the nodes that run, in their order."""
        nodes = self.nodes(cluster)
        return sorted(name for name, item in nodes.items() if item["State"]["Running"])

    def starts(self, cluster: str = "lab") -> dict[str, tuple[str, str]]:
        """Return id and start of every node's container: equal as long as nobody touched it."""
        return {
            name: (item["Id"], item["State"]["StartedAt"])
            for name, item in self.nodes(cluster).items()
        }

    def inside(self, node: str, *command: str, cluster: str = "lab", user: str = "root") -> str:
        """Run a command in a node and return its output."""
        return self.docker("exec", "--user", user, self.container(node, cluster), *command)

    def container(self, node: str, cluster: str = "lab") -> str:
        """Return the name of a node's container."""
        return f"epic.{self.tenant}.{cluster}.{node}"

    def status(self, cluster: str = "lab") -> dict[str, Any]:
        """Return `epic-run status`."""
        found: dict[str, Any] = self.json("status", cluster)
        return found

    def operations(self) -> set[str]:
        """Return the ids of the operations that have a folder."""
        folder = self.home / "operations"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def leftovers(self) -> list[str]:
        """Return the command lines of processes that operations of this site have started."""
        marks = {f"EPIC_OPERATION={name}".encode() for name in self.operations()}
        home = f"EPIC_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                variables = set((entry / "environ").read_bytes().split(b"\0"))
                of_controller = any(line.startswith(b"EPIC_CONTROLLER=") for line in variables)
                if marks & variables or (home in variables and of_controller):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def is_as_wanted(self, nodes: list[str], cluster: str = "lab") -> None:
        """Assert that a cluster has exactly these nodes, all ready, and nothing works on it."""
        status = self.status(cluster)
        assert status["health"] == "green", status
        assert sorted(node["name"] for node in status["nodes"]) == nodes
        assert self.running(cluster) == nodes
        assert sorted(self.nodes(cluster)) == nodes
        assert self.leftovers() == []
        storage = f"epic.{self.tenant}.storage"
        own = self.docker(
            "volume", "ls", "--quiet", f"--filter=label=epic.tenant={self.tenant}",
            f"--filter=label=epic.cluster={cluster}",
        ).split()  # fmt: skip
        assert sorted(own) == sorted(self.container(node, cluster) for node in nodes)
        assert storage in self.labelled("volume")

    def has_nothing(self) -> None:
        """Assert that of all clusters nothing is left but the tenant's storage."""
        assert self.labelled("container") == []
        assert self.labelled("network") == []
        volumes = self.labelled("volume")
        assert set(volumes) <= {f"epic.{self.tenant}.storage"}, volumes
        assert list(self.home.glob(f"secrets/{self.tenant}/*.json")) == []
        assert self.leftovers() == []

    def clean_up(self) -> None:
        """Remove all that carries the tenant's label, whatever epic-run thinks of it."""
        kill_marked(f"EPIC_HOME={self.home}".encode())
        if containers := self.labelled("container"):
            self.docker("rm", "--force", "--volumes", *containers)
        if networks := self.labelled("network"):
            self.docker("network", "rm", *networks)
        if volumes := self.labelled("volume"):
            self.docker("volume", "rm", "--force", *volumes)
        self._forget_rules()

    def _forget_rules(self) -> None:
        """Take the tenant's rules out of the engine's firewall, which would keep them for good."""
        at = ["--host", self.docker_host] if self.docker_host else []
        forget = f"rm -f /var/lib/epic-firewall/{self.tenant}.json && kill -HUP 1"
        # There may be none, or another test takes it away at this moment, with all rules.
        subprocess.run(
            ["docker", *at, "exec", FIREWALL, "sh", "-c", forget],
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip


def kill_marked(mark: bytes) -> None:
    """Kill every process that has a line in its environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


@contextmanager
def site(folder: Path, **attributes: Any) -> Iterator[Site]:
    """Have a site, and nothing of it afterwards, however the tests went."""
    made = Site(folder, **attributes)
    try:
        yield made
    finally:
        made.clean_up()
