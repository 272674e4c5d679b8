"""Playbooks of anybody's own: who may run them for whom, and what is remembered of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from life_samples import known, spec, tenant

from epic_runner.actions import drive, playing
from epic_runner.actions.request import ActionRequest
from epic_runner.errors import InputError
from epic_runner.lifecycle import Context, acting_user
from epic_runner.store import ActionRecord

LAB = spec(workers=2)
NAMES = ["master-1", "worker-1", "worker-2"]


def counts(**values: int) -> dict[str, int]:
    return {"ok": 1, "changed": 0, "failures": 0, "unreachable": 0, "skipped": 0, **values}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with known(tmp_path, LAB, *NAMES) as made:
        yield made


@pytest.fixture
def playbook(tmp_path: Path) -> str:
    path = tmp_path / "site.yml"
    path.write_text("- hosts: all\n")
    return str(path)


def ending(monkeypatch: pytest.MonkeyPatch, rc: int, recap: Mapping[str, Any]) -> None:
    monkeypatch.setattr(playing, "_run", lambda *_: (rc, recap))


def latest(context: Context) -> ActionRecord:
    with context.store.read() as transaction:
        return transaction.actions("work", "lab")[0]


def test_a_play_is_remembered_with_what_it_made_of_each_node(
    context: Context, playbook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recap = {"lab-master-1": counts(failures=1), "lab-worker-2": counts(), "localhost": counts()}
    ending(monkeypatch, 2, recap)
    assert playing.play(context, "lab", playbook, ["-e", "password=hidden"]) == 2
    kept = latest(context)
    assert (kept.user, kept.name, kept.state) == ("ada", "site.yml", "failed")
    assert kept.reason == "ansible-playbook ended with 2"
    assert {name: item.state for name, item in kept.nodes.items()} == {
        "master-1": "failed", "worker-1": "skipped", "worker-2": "done",
    }  # fmt: skip
    assert kept.digest == hashlib.sha256(Path(playbook).read_bytes()).hexdigest()
    assert "hidden" not in repr(kept)


def test_a_play_that_comes_to_no_end_is_never_a_success(
    context: Context, playbook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, 4, {})
    assert playing.play(context, "lab", playbook) == 4
    assert latest(context).state == "failed"
    assert {item.state for item in latest(context).nodes.values()} == {"unknown"}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(playing, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        playing.play(context, "lab", playbook)
    assert (latest(context).state, latest(context).reason) == ("cancelled", "it was interrupted")


def test_a_play_of_somebody_who_is_no_member_is_refused_and_remembered(
    context: Context, playbook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, 0, {})
    with pytest.raises(InputError, match="eve is not a member of tenant work"):
        playing.play(context, "lab", playbook, user="eve")
    assert (latest(context).user, latest(context).state) == ("eve", "refused")


def test_a_play_whose_process_is_gone_is_unknown_and_cannot_be_cancelled(
    context: Context, playbook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ActionRecord] = []

    def run(*_: object) -> Any:
        seen.append(latest(context))
        with pytest.raises(InputError, match="is a play"):
            drive.cancel(context, seen[0])
        with context.store.transaction() as transaction:
            transaction.set_action(seen[0].id, pid_started="7")
        found = drive.settle(context, latest(context))
        assert {item.state for item in found.nodes.values()} == {"unknown"}
        return 0, {}

    monkeypatch.setattr(playing, "_run", run)
    playing.play(context, "lab", playbook)
    assert seen[0].state == "running"


@pytest.mark.parametrize(
    ("asker", "user", "why"),
    [
        (None, "bob", ""),
        ("bob", "bob", ""),
        ("ada", "bob", ""),
        ("bob", "ada", "bob is no administrator of tenant work, and may not act for ada."),
        ("eve", "bob", "eve is not a member of tenant work."),
    ],
)
def test_administrators_alone_act_for_others(asker: str | None, user: str, why: str) -> None:
    assert tenant().why_not_for(user, asker) == why
    if why:
        with pytest.raises(InputError) as refused:
            acting_user(tenant(), user, asker)
        assert refused.value.message == why
    else:
        assert acting_user(tenant(), user, asker) == user


def test_an_action_tells_who_asked_for_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_USER", "bob")
    asking = Context(context.store, context.hosts)
    request = ActionRequest("it.sh", b"true")
    assert drive.begin(asking, "lab", request, user="bob").asked_by == ""
    with pytest.raises(InputError, match="bob is no administrator"):
        drive.begin(asking, "lab", request, user="ada")
    assert (latest(context).state, latest(context).asked_by) == ("refused", "bob")
    monkeypatch.setenv("EPIC_USER", "ada")
    asking = Context(context.store, context.hosts)
    assert drive.begin(asking, "lab", request, user="bob").asked_by == "ada"
