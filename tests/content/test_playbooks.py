"""Playbooks read as tables of contents, and run by plain ansible-playbook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from epic_runner.events import GATEWAY_PHASES, NETWORK_PHASE, READY_PHASE

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))

each_playbook = pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)


def plays(playbook: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(playbook.read_text(encoding="utf-8"))


def test_there_are_playbooks() -> None:
    assert PLAYBOOKS


@each_playbook
def test_every_play_has_a_name_that_starts_like_a_sentence(playbook: Path) -> None:
    for play in plays(playbook):
        assert play["name"][0].isupper()


@each_playbook
def test_a_playbook_says_at_its_top_what_it_is_for(playbook: Path) -> None:
    first, second = playbook.read_text(encoding="utf-8").splitlines()[:2]
    assert first == "---"
    assert second.startswith("# ")


@each_playbook
def test_a_playbook_is_short_enough_to_be_a_table_of_contents(playbook: Path) -> None:
    assert len(playbook.read_text(encoding="utf-8").splitlines()) <= 60


@each_playbook
def test_a_play_acts_on_groups_of_the_inventory_only(playbook: Path) -> None:
    hosts = {str(play.get("hosts", "docker_hosts")) for play in plays(playbook)}
    known = {"docker_hosts", "network_managers", "gateway_hosts", "nodes", "localhost", "all"}
    assert hosts <= known


def test_plays_that_do_without_a_silent_host_are_those_that_the_program_takes_for_such() -> None:
    named = {play["name"]: play for path in PLAYBOOKS for play in plays(path)}
    assert {NETWORK_PHASE, READY_PHASE} < named.keys()
    # Whoever brings up the gateway itself wants to know.
    tolerant = {name for name, play in named.items() if play.get("ignore_unreachable")}
    assert tolerant == GATEWAY_PHASES
    assert {named[name]["hosts"] for name in GATEWAY_PHASES} == {"gateway_hosts"}


def test_every_file_of_tasks_is_short() -> None:
    long = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.glob("roles/*/tasks/*.yml")
    }
    assert {path: lines for path, lines in long.items() if lines > 70} == {}
