"""Ansible's events as phases, nodes, and one readable error."""

from __future__ import annotations

from typing import Any

import pytest

from epic_runner.errors import HostsSilent, OperationFailed, PortsTaken
from epic_runner.events import (
    GATEWAY_PHASES,
    NETWORK_PHASE,
    READY_PHASE,
    Step,
    Translator,
)


class Play:
    """Feeds a translator as ansible-runner does."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.translator = Translator(self.steps.append)

    def happens(self, event: str, **data: Any) -> None:
        assert self.translator.handle({"event": event, "event_data": data})

    def begins(self, name: str = "Create nodes") -> None:
        self.happens("playbook_on_play_start", name=name)
        self.happens("playbook_on_task_start")

    def fails(self, **result: Any) -> OperationFailed:
        self.happens("runner_on_failed", host="local", res=result)
        failure = self.translator.failure()
        assert failure
        return failure


@pytest.fixture
def play() -> Play:
    made = Play()
    made.begins()
    return made


def test_nodes_are_told_as_the_module_reports_them(play: Play) -> None:
    play.happens("runner_on_ok", host="local", res={"nodes": {"worker-1": "created"}})
    assert [(step.phase, step.node, step.message) for step in play.steps] == [
        ("Create nodes", "", ""),
        ("Create nodes", "worker-1", "created"),
    ]
    assert play.translator.failure() is None
    assert play.translator.saw_events


def test_files_that_were_not_as_wanted_are_told_with_their_node(play: Play) -> None:
    result = {"nodes": {"worker-1": "mended", "worker-2": "unchanged"},
              "files_changed": {"worker-1": ["/etc/epic/passwd"]}}  # fmt: skip
    play.happens("runner_on_ok", host="local", res=result)
    assert [dict(step.result) for step in play.steps] == [{}, {"files": ["/etc/epic/passwd"]}, {}]


def test_a_play_without_hosts_is_not_told(play: Play) -> None:
    play.happens("playbook_on_play_start", name="Create the network")
    play.happens("playbook_on_no_hosts_matched")
    play.begins("Wait until ready")
    assert [step.phase for step in play.steps] == ["Create nodes", "Wait until ready"]


def test_what_hosts_say_of_themselves_is_kept_by_host(play: Play) -> None:
    play.happens("runner_on_ok", host="h1", res={"epic_facts": {"cores": 4}})
    play.happens("runner_on_unreachable", host="h2", res={"msg": "No route to host"})
    assert play.translator.facts == {"h1": {"cores": 4}}
    assert play.translator.silent == {"h2": "No route to host"}


def test_a_failure_elsewhere_comes_before_a_host_that_is_away(play: Play) -> None:
    play.happens("runner_on_unreachable", host="h2", res={"msg": "No route to host"})
    only = play.translator.failure()
    assert isinstance(only, HostsSilent)
    assert only.hosts == {"h2"}
    failure = play.fails(failed_nodes={"worker-1": "no space left on device"})
    said = "Create nodes: worker-1: no space left on device; h2 could not be reached"
    assert failure.message == said
    assert not isinstance(failure, HostsSilent)


def test_a_node_that_failed_is_named_with_its_reason(play: Play) -> None:
    failure = play.fails(msg="x", nodes={}, failed_nodes={"worker-1": "no space left on device"})
    assert failure.message == "Create nodes: worker-1: no space left on device"
    assert play.steps[-1].failed


def test_several_failures_are_counted(play: Play) -> None:
    failure = play.fails(failed_nodes={"worker-1": "a", "worker-2": "b"})
    assert failure.message == "Create nodes: worker-1: a (1 more failed)"


def test_a_command_that_failed_shows_the_last_lines_of_the_logs(play: Play) -> None:
    outcome = {"rc": 1, "stdout": "", "stderr": "first\nnobody answers", "logs": {"/l": "x\ny"}}
    failure = play.fails(msg="m", outcomes={"master-1": outcome, "worker-1": {"rc": 0}})
    assert "master-1: nobody answers" in failure.message
    assert "Its last log lines:\n  x\n  y" in failure.message


def test_a_missing_image_comes_with_the_command_that_makes_it(play: Play) -> None:
    from epic_runner.catalog import load_catalog
    from epic_runner.resources import content_root

    spark = load_catalog(content_root() / "images").get("spark")
    assert spark
    failure = play.fails(msg="this host does not have it", missing_images=[spark.reference])
    assert "this host does not have it" in failure.message
    assert failure.hint == "epic-run image build spark"


def test_ports_that_others_have_are_an_error_of_their_own(play: Play) -> None:
    failure = play.fails(failed_nodes={"master-1": "taken"}, port_clashes=["master-1"])
    assert isinstance(failure, PortsTaken)
    assert failure.nodes == {"master-1"}


def test_ports_are_not_the_matter_when_something_else_failed_too(play: Play) -> None:
    failure = play.fails(
        failed_nodes={"master-1": "taken", "worker-1": "disk"}, port_clashes=["master-1"]
    )
    assert not isinstance(failure, PortsTaken)


def test_a_failure_that_a_task_overlooks_is_told_all_the_same(play: Play) -> None:
    outcomes = {"worker-9": {"rc": 1, "stderr": "no such file"}}
    play.happens("runner_on_ok", host="local", res={"outcomes": outcomes})
    assert (play.steps[-1].node, play.steps[-1].message) == ("worker-9", "no such file")
    assert play.translator.failure() is None


def test_an_ordinary_task_is_told_without_ansibles_own_places(play: Play) -> None:
    failure = play.fails(msg="It is  undefined.\nOrigin: /somewhere/vars.yml:3")
    assert failure.message == "Create nodes: host local: It is undefined."


def test_an_error_that_is_ignored_is_none(play: Play) -> None:
    play.happens("runner_on_failed", host="local", res={"msg": "x"}, ignore_errors=True)
    assert play.translator.failure() is None


def test_a_silent_host_that_had_answered_is_told_from_one_that_never_did(play: Play) -> None:
    play.happens("runner_on_ok", host="h1", res={})
    for name in ("h1", "h2"):
        play.happens("runner_on_unreachable", host=name, res={"msg": "No route to host"})
    failure = play.translator.failure()
    assert isinstance(failure, HostsSilent)
    assert (failure.hosts, failure.begun) == ({"h1", "h2"}, {"h1"})
    assert "epic-run host drain h1 --lost" in (failure.hint or "")


def test_of_the_only_machine_nothing_is_said_that_needs_others(play: Play) -> None:
    play.happens("runner_on_unreachable", host="local", res={"msg": "Task failed: it hangs"})
    failure = play.translator.failure()
    assert failure
    assert failure.message == "Create nodes: host local: it hangs"
    assert failure.hint == "epic-run doctor tells what is wrong with it."


def test_services_are_not_waited_for_once_a_host_is_silent(play: Play) -> None:
    play.happens("runner_on_unreachable", host="h2", res={"msg": "No route to host"})
    # Nodes on the other hosts are made, stopped and removed all the same.
    assert not play.translator.waits_in_vain
    play.begins("Wait until ready")
    assert play.translator.waits_in_vain


def test_a_network_without_a_leader_is_the_silent_host_s_fault(play: Play) -> None:
    upset = {"worker-2": "network wooq8dqfw7x9 not found"}
    play.happens("runner_on_failed", host="h2", res={"failed_nodes": upset})
    alone = play.translator.failure()
    assert alone
    assert alone.message == "Create nodes: worker-2 on host h2: network wooq8dqfw7x9 not found"
    play.happens("runner_on_unreachable", host="h3", res={"msg": "No route to host"})
    failure = play.translator.failure()
    assert isinstance(failure, HostsSilent)
    assert failure.message == "Create nodes: host h3: No route to host"


@pytest.mark.parametrize("phase", sorted(GATEWAY_PHASES))
def test_a_gateway_that_is_away_is_told_and_fails_nothing(play: Play, phase: str) -> None:
    play.begins(phase)
    play.happens("runner_on_unreachable", host="h1", res={"msg": "No route to host"})
    assert play.translator.failure() is None
    assert (play.translator.saw_events, play.translator.silent) == (True, {})
    told = play.steps[-1]
    assert (told.phase, told.node, told.failed) == (phase, "h1", False)
    assert "epic-run gateway up" in told.message
    # The same host is missed where a cluster needs it.
    play.begins("Destroy the cluster")
    play.happens("runner_on_unreachable", host="h1", res={"msg": "No route to host"})
    assert isinstance(play.translator.failure(), HostsSilent)


def test_a_manager_that_is_away_keeps_no_services_from_being_waited_for(play: Play) -> None:
    play.begins(NETWORK_PHASE)
    play.happens("runner_on_unreachable", host="h1", res={"msg": "No route to host"})
    play.begins(READY_PHASE)
    assert not play.translator.waits_in_vain
