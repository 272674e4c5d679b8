"""The hosts of an inventory, as `doctor` sees them: what each is like, and what it lacks.

What hosts say, and what is amiss with it, is that of `epic-run host check`; nothing of it is
remembered here, and no store is needed. `judge_host` decides, `look_at_hosts` goes there.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epic_runner import hosting, ssh
from epic_runner.catalog import load_catalog
from epic_runner.doctor import (
    CatalogFacts,
    Finding,
    MemoryFacts,
    State,
    judge_memory,
    judge_nodes,
    worst,
)
from epic_runner.doctor_facts import catalog_facts
from epic_runner.errors import DockerUnavailable, OperationFailed
from epic_runner.everywhere import ask_all
from epic_runner.host_inventory import inventory_path, read_inventory
from epic_runner.hosts import Host
from epic_runner.output import bytes_text
from epic_runner.resources import content_root
from epic_runner.site import described
from epic_runner.store import HostRecord

# A host that is away shall not keep people waiting for much longer.
REACH_SECONDS = 8.0
# Without these, a host is of no use for clusters.
SERIOUS = frozenset({"reach", "docker", "swarm"})


@dataclass(frozen=True)
class HostReport:
    """A host and what was found there.

    Attributes:
        host: Its name.
        seen: What it is like, as a phrase.
        findings: All that is worth knowing; those without a mend need none.
    """

    host: str
    seen: str
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst of its findings' states."""
        return worst(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {**asdict(self), "state": self.state}


def look_at_hosts() -> list[HostReport]:
    """Look at every host of the inventory, all at once; none where there is no inventory."""
    path = inventory_path()
    if path is None:
        return []
    entries = read_inventory(path)
    hosts = {name: described(entry, HostRecord(name)) for name, entry in entries.items()}
    answers, silent = ask_all(hosts.values(), reach)
    if not answers:
        found = hosting.findings({}, silent, (0.0, 0.0))
        return [judge_host(name, None, found, None, (0.0, 0.0)) for name in hosts]
    there = [hosts[name] for name in answers]
    catalog = load_catalog(content_root() / "images")
    with ThreadPoolExecutor(1) as beside, tempfile.TemporaryDirectory() as folder:
        asked = beside.submit(ask_all, there, lambda host: catalog_facts(host, catalog))
        try:
            said, lost, span = hosting.look(hosts, answers, Path(folder) / "play")
        except OperationFailed as problem:
            # A host without Python, for example: the play names it.
            said, lost, span = {}, dict.fromkeys(answers, problem.message), (0.0, 0.0)
        images, _ = asked.result()
    found = hosting.findings(said, {**silent, **lost}, span)
    return [judge_host(name, said.get(name), found, images.get(name), span) for name in hosts]


def reach(host: Host) -> bool:
    """Return that a host lets this machine in.

    Raises:
        DockerUnavailable: It does not, or not in time.
    """
    if host.is_local:
        return True
    # A connection of its own: one that is shared with others may hang on a host that has died.
    options = ("-o", "ControlPath=none")
    command = ["ssh", *options, *ssh.arguments(host), ssh.destination(host), "true"]
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=REACH_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DockerUnavailable(f"no answer within {REACH_SECONDS:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise DockerUnavailable(lines[-1] if lines else f"ssh ends with {done.returncode}")
    return True


def judge_host(
    name: str,
    said: Mapping[str, Any] | None,
    found: list[hosting.Finding],
    images: CatalogFacts | None,
    span: tuple[float, float],
) -> HostReport:
    """Return what to tell of one host: a pure function.

    Args:
        name: Its name.
        said: What it said of itself; None where it was silent.
        found: What is worth knowing of all hosts.
        images: The images that it has; None where it was not told.
        span: This machine's clock before and after it was asked.
    """
    findings = [
        Finding(item.check, _state(item), item.what, item.mend or None)
        for item in found
        if item.host == name
    ]
    if said is None:
        return HostReport(name, "silent", tuple(findings))
    memory = judge_memory(MemoryFacts(said["memory_bytes"], said["memory_available_bytes"]))
    if memory.state is not State.OK:
        findings.append(memory)
    findings += [_judge_images(images)] if images else []
    return HostReport(name, _summary(said, span), tuple(findings))


def _state(item: hosting.Finding) -> State:
    if not item.mend:
        return State.OK
    return State.FAIL if item.check in SERIOUS else State.WARN


def _judge_images(facts: CatalogFacts) -> Finding:
    # What is missing or stale on a host, it gets when a launch needs it.
    fresh = sum(image.present and image.fresh for image in facts.images)
    stale = [image.name for image in facts.images if image.present and not image.fresh]
    seen = f"{fresh} of {len(facts.images)} images as built here"
    if stale:
        seen += f", older builds of {', '.join(stale)}; a launch brings what it needs"
    return judge_nodes(facts) or Finding("images", State.OK, seen)


def _summary(said: Mapping[str, Any], span: tuple[float, float]) -> str:
    swarm = said["swarm"]
    place = f"{swarm['role']} of the swarm" if swarm.get("state") == "active" else "in no swarm"
    return ", ".join(
        [
            f"Docker {said['docker_version'] or 'silent'}",
            f"{said['cores']} cores",
            f"{bytes_text(said['memory_available_bytes'])} of {bytes_text(said['memory_bytes'])}",
            f"{bytes_text(said['disk_free_bytes'])} of {bytes_text(said['disk_bytes'])} disk free",
            f"clock {hosting.clock_offset(said, span):+.1f} s",
            place,
        ]
    )
