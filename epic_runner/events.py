"""Ansible's events, told as phases and nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epic_runner.errors import HostsSilent, OperationFailed, PortsTaken
from epic_runner.output import bytes_text


@dataclass(frozen=True)
class Step:
    """Something that happened in an operation.

    Attributes:
        phase: The phase it happened in: the play's name.
        node: The node's short name, or the host's name; empty for the phase itself.
        message: What happened, in a word or a sentence; empty when the phase begins.
        failed: Whether it went wrong.
        tenant: The tenant of the cluster at work.
        cluster: The cluster at work.
        result: What a host's work came to, for programs, or a node's: `files`, those of it that
            were not as wanted. Empty while it goes on.
    """

    phase: str
    node: str = ""
    message: str = ""
    failed: bool = False
    tenant: str = ""
    cluster: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


# What the action plugin epic_images prints while it is at work: the host, and what goes on there.
_TOLD = re.compile(r"images: (\S+): (.+)")


# What networks that span hosts say while the swarm's managers choose another leader: not what is
# wrong, where one of them is silent.
_SWARM_UPSET = re.compile(
    r"network \S+ not found|attaching to network failed|[Cc]ould not attach to network"
    r"|not have a leader|lost leader"
)

# The names of this machine in inventories, which tell people nothing.
_HERE = ("local", "localhost")

# The play in which nodes wait for one another, on all hosts.
READY_PHASE = "Wait until ready"

# The plays that go on without a host that is silent: any of the swarm's managers makes a network,
# and the gateway's routes are brought up to date when it is back.
NETWORK_PHASE = "Create the network"
GATEWAY_PHASES = frozenset(
    {
        "Open the way through the gateway",
        "Close the way through the gateway",
        "Close the way to what has left",
    }
)

Listener = Callable[[Step], None]


@dataclass(frozen=True)
class _Failure:
    """What went wrong: in which play, with which node or host, on which host, why."""

    phase: str
    what: str
    where: str
    message: str
    logs: str


class Translator:
    """Turns ansible-runner's events into steps, and remembers what failed.

    Attributes:
        facts: What hosts said of themselves, by host (the module epic_host_facts).
        silent: The hosts that could not be reached, and why.
        saw_events: Whether anything came of any task.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._phase = ""
        self._failures: list[_Failure] = []
        self._item = ""
        self._missing_images: set[str] = set()
        self._port_clashes: set[str] = set()
        self._told = False
        self.facts: dict[str, dict[str, Any]] = {}
        self.silent: dict[str, str] = {}
        self._is_missed = False
        self._heard: set[str] = set()
        self._hint: str | None = None
        self.saw_events = False

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Take one event; True, so that ansible-runner keeps it on disk."""
        kind = event.get("event", "")
        data = event.get("event_data", {})
        if kind == "playbook_on_play_start":
            self._phase, self._told = str(data.get("name", "")), False
        elif kind == "playbook_on_task_start" and not self._told:
            # Not with the play: one that has no hosts here is none of people's business.
            self._told = True
            self._listener(Step(self._phase))
        elif kind == "verbose":
            told = _TOLD.fullmatch(str(event.get("stdout", "")).strip())
            if told:
                self._listener(Step(self._phase, told[1], told[2]))
        elif kind == "runner_on_ok":
            self.saw_events = True
            self._heard.add(str(data.get("host", "")))
            self._went_well(str(data.get("host", "")), data.get("res", {}))
        elif kind == "runner_item_on_failed":
            self._item = str(data.get("res", {}).get("msg", ""))
        elif kind == "runner_on_unreachable":
            self.saw_events = True
            self._silent(str(data.get("host", "")), data)
        elif kind == "runner_on_failed":
            self.saw_events = True
            if not data.get("ignore_errors"):
                self._failed(str(data.get("host", "")), data.get("res", {}))
        return True

    def _silent(self, host: str, data: Mapping[str, Any]) -> None:
        if self._phase in GATEWAY_PHASES:
            self._listener(Step(self._phase, host, gateway_is_away(host)))
            return
        result = data.get("res", {})
        self.silent[host] = _plain(result, "")
        self._is_missed |= self._phase != NETWORK_PHASE
        if not data.get("ignore_errors"):
            self._failed(host, result)

    def _went_well(self, host: str, result: Mapping[str, Any]) -> None:
        if "epic_facts" in result:
            self.facts[host] = result["epic_facts"]
        self._nodes(result)
        self._images(host, result)
        self._overlooked(result)

    @property
    def waits_in_vain(self) -> bool:
        """Whether services are waited for that need a host which has become silent meanwhile."""
        return self._is_missed and self._phase == READY_PHASE

    @property
    def only_silent(self) -> bool:
        """Whether nothing went wrong but that hosts could not be reached."""
        return bool(self._failures) and not self._elsewhere()

    def _elsewhere(self) -> list[_Failure]:
        """Return the failures that are not those of hosts that could not be reached."""
        away = {f"host {name}" for name in self.silent}
        return [
            failure
            for failure in self._failures
            if failure.what not in away and not (away and _SWARM_UPSET.search(failure.message))
        ]

    def failure(self) -> OperationFailed | None:
        """Return the error for people, None when no task failed."""
        if not self._failures:
            return None
        # A host that is away may have been one that the play can do without; what went wrong on
        # another one is then what matters.
        away = [item for item in self._failures if item.what.removeprefix("host ") in self.silent]
        failures = self._elsewhere() or away[-1:] or self._failures[-1:]
        first = failures[0]
        more = f" ({len(failures) - 1} more failed)" if len(failures) > 1 else ""
        text = f"{first.phase}: {first.what}{first.where}: {first.message}{more}"
        if away and first not in away:
            text += f"; {' and '.join(sorted(self.silent))} could not be reached"
        if first.logs:
            text += f"\nIts last log lines:\n{first.logs}"
        if self.only_silent:
            return HostsSilent(text, self.silent, self._heard & self.silent.keys())
        if self._port_clashes and self._port_clashes == {item.what for item in failures}:
            return PortsTaken(text, self._port_clashes)
        return OperationFailed(text, image_hint(self._missing_images) or self._hint)

    def _nodes(self, result: Mapping[str, Any]) -> None:
        nodes, files = result.get("nodes"), result.get("files_changed") or {}
        for node, outcome in nodes.items() if isinstance(nodes, dict) else ():
            if isinstance(outcome, str):
                about = {"files": list(files[node])} if node in files else {}
                self._listener(Step(self._phase, node, outcome, result=about))
        for node, outcome in result.get("outcomes", {}).items() if _is_exec(result) else ():
            if not outcome.get("rc"):
                for line in outcome.get("stdout", "").splitlines():
                    name, _, state = line.partition("\t")
                    self._listener(
                        Step(self._phase, name, state) if state else Step(self._phase, node, line)
                    )

    def _images(self, host: str, result: Mapping[str, Any]) -> None:
        """Tell what came of a host's images, if it is another machine than the controller."""
        outcomes = result.get("images")
        if not isinstance(outcomes, dict) or not outcomes:
            return
        pulled = [image for image, outcome in outcomes.items() if outcome == "pulled"]
        message = f"has {', '.join(pulled)} now" if pulled else "unchanged"
        if pulled and result.get("moved_bytes"):
            message += f", {bytes_text(result['moved_bytes'])} moved"
        came = {key: result[key] for key in ("images", "moved_bytes") if key in result}
        self._listener(Step(self._phase, host, message, result=came))

    def _overlooked(self, result: Mapping[str, Any]) -> None:
        """Tell of commands that failed in a task that goes on all the same."""
        for node, outcome in result.get("outcomes", {}).items() if _is_exec(result) else ():
            if outcome.get("rc"):
                self._listener(Step(self._phase, node, _reason(outcome)))

    def _failed(self, host: str, result: Mapping[str, Any]) -> None:
        self._nodes(result)
        self._missing_images.update(result.get("missing_images") or ())
        self._port_clashes.update(result.get("port_clashes") or ())
        self._hint = self._hint or result.get("hint")
        failures = [(node, why, "") for node, why in dict(result.get("failed_nodes") or {}).items()]
        if _is_exec(result):
            failures += [
                (node, _reason(outcome), _logs(outcome))
                for node, outcome in result["outcomes"].items()
                if outcome.get("rc")
            ]
        where = f" on host {host}" if failures and host not in _HERE else ""
        failures = failures or [(f"host {host}", _plain(result, self._item), "")]
        for node, why, logs in failures:
            self._failures.append(_Failure(self._phase, node, where, why, logs))
            self._listener(Step(self._phase, node, why, failed=True))


def gateway_is_away(host: str) -> str:
    """Return what becomes of a cluster's routes while the gateway's host is silent."""
    return (
        f"the gateway's host {host} does not answer, so its routes stay as they were; epic-run "
        "gateway up brings them up to date when it is back"
    )


def image_hint(images: Iterable[str]) -> str | None:
    """Return the command that makes images of the catalogue; None where there are none."""
    images = set(images)
    if not images:
        return None
    from epic_runner.catalog import load_catalog
    from epic_runner.resources import content_root

    apps = load_catalog(content_root() / "images")
    names = sorted(app.name for app in apps if app.reference in images)
    return " ".join(["epic-run image build", *names])


def _is_exec(result: Mapping[str, Any]) -> bool:
    return isinstance(result.get("outcomes"), dict)


def _reason(outcome: Mapping[str, Any]) -> str:
    text = str(outcome.get("stderr") or outcome.get("stdout") or "").strip()
    return text.splitlines()[-1] if text else f"exit code {outcome.get('rc')}"


def _logs(outcome: Mapping[str, Any]) -> str:
    return "\n".join(
        f"  {line}"
        for content in outcome.get("logs", {}).values()
        for line in str(content).splitlines()
    )


def _plain(result: Mapping[str, Any], item: str) -> str:
    message = str(result.get("msg") or result.get("stderr") or result)
    if message == "One or more items failed":
        message = item
    message = message.removeprefix("Task failed: ")
    # Of a host that is away, ssh's own words say it all.
    message = message.rpartition("Make sure this host can be reached over ssh: ")[2]
    # Ansible repeats where in its own files a task failed; that is of use to its authors only.
    return re.sub(r"\s+", " ", message.split("Origin: ")[0]).strip()
