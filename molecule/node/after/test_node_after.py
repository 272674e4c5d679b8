"""What the other verbs of the role `node` leave behind: stop, start, mend, leave, remove."""

from __future__ import annotations


def test_what_people_made_survived_the_stop(node):
    assert node("server-1").file("/home/ada/kept").user == "ada"
    assert node("server-1").file("/tenant/kept").exists


def test_services_run_again(node):
    assert node("server-1").check_output("curl -sf http://localhost:8000/") == "lab-server-1"


def test_a_file_that_was_changed_by_hand_was_mended(node):
    greeting = node("server-1").file("/etc/web/greeting")
    assert (greeting.content_string, greeting.mode) == ("hello\n", 0o640)


def test_only_the_leaving_node_handed_over_its_work(node):
    assert node("server-1").file("/tenant/client-left").exists
    assert not node("server-1").file("/tenant/server-left").exists


def test_the_removed_node_left_neither_a_container_nor_a_volume(docker_names):
    assert docker_names("container") == {"server-1"}
    assert docker_names("volume") == {"server-1", "storage"}
