"""Scripts run on all nodes, as their members or as root, and may go on without the play."""

from __future__ import annotations

import pytest

FOLLOW = "epic-job follow {} --from-start"


@pytest.mark.parametrize(("name", "index"), [("desk-1", "1"), ("desk-2", "2")])
def test_a_script_learns_where_it_is_and_gets_its_arguments(node, name, index):
    lines = node(name).check_output(FOLLOW.format("where")).splitlines()
    assert lines == ["desk", index, "ada", "two words", "$HOME", "Hello"]


def test_a_script_runs_as_root_on_behalf_of_a_member(node):
    assert node("desk-1").check_output(FOLLOW.format("root")) == "0 ada"


def test_a_script_that_is_not_waited_for_goes_on_until_it_is_cancelled(node):
    assert '"state": "running"' in node("desk-1").check_output("epic-job show long")
    node("desk-1").check_output("epic-job cancel long")
    long = node("desk-1").run(FOLLOW.format("long"))
    assert (long.rc, long.stdout) == (143, "begun\n")


def test_the_script_is_for_who_runs_it_alone(node):
    own, roots = (
        node("desk-1").file(f"/data/jobs/{path}") for path in ("where/where.sh", "root/root.py")
    )
    assert (own.user, own.mode, roots.user, roots.mode) == ("ada", 0o500, "root", 0o500)


def test_all_that_a_script_prints_is_kept_though_its_play_saw_only_some_of_it(node):
    shown = node("desk-1").check_output(FOLLOW.format("chatty"))
    assert shown.splitlines() == [str(number) for number in range(1, 100_001)]


def test_who_may_not_become_root_has_run_nothing(node):
    assert not node("desk-1").file("/data/jobs/refused").exists
