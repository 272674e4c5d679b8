"""Jobs go on in their nodes, as their members, after the play that started them."""

from __future__ import annotations

import pytest

FOLLOW = "epic-job follow {} --from-start"


def test_a_job_gets_its_environment_and_its_arguments(node):
    hello = node("desk-1").run(FOLLOW.format("hello"))
    assert hello.stdout == "Hello, two words\n"
    assert hello.stderr == "by ada in /data/home/ada on lab-desk-1\n"


def test_a_job_ends_with_its_own_exit_code(node):
    assert node("desk-1").run(FOLLOW.format("hello")).rc == 3
    assert node("desk-2").run(FOLLOW.format("arguments")).rc == 0


def test_no_shell_reads_the_arguments(node):
    arguments = node("desk-2").check_output(FOLLOW.format("arguments"))
    assert arguments.splitlines() == ["1", "two", "; false", "$HOME"]


def test_the_file_of_a_job_is_for_its_member_alone(node):
    file = node("desk-1").file("/data/jobs/hello.files/hello.sh")
    assert (file.user, file.group, file.mode) == ("ada", "ada", 0o600)


@pytest.mark.parametrize(("name", "job"), [("desk-1", "arguments"), ("desk-2", "hello")])
def test_a_job_is_on_the_node_that_was_named_or_else_on_the_first(node, name, job):
    assert not node(name).file(f"/data/jobs/{job}").exists


def test_a_job_that_was_waited_for_is_over_when_its_play_is(node):
    assert '"state": "done", "rc": 0' in node("desk-1").check_output("epic-job show awaited")
