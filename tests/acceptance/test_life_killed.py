"""A controller that dies at any moment: the same command again finishes what it began."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import life_support
import pytest
from life_support import Site, until

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]
ALL = ["master-1", "worker-1", "worker-2"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.fixture(scope="module")
def template(site: Site) -> str:
    return site.template()


def new_operation(site: Site) -> Callable[[], bool]:
    """Tell that an operation has begun that is not there yet: all is reserved, no play runs."""
    before = site.operations()
    return lambda: site.operations() > before


def a_container(site: Site) -> Callable[[], bool]:
    before = len(site.labelled("container"))
    return lambda: len(site.labelled("container")) > before


def moment(site: Site, name: str) -> str | Callable[[], bool]:
    if name == "reserved":
        return new_operation(site)
    if name == "first container":
        return a_container(site)
    return name


def open_files(pid: int) -> set[str]:
    """Return what a process has open; others of its files come and go while one looks."""
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(file.readlink()))
    return found


def test_killed_while_reading_nothing_is_begun(site: Site) -> None:
    pipe = site.folder / "pipe.yml"
    os.mkfifo(pipe)
    # Open at both ends, so that nobody waits for the other: the command waits for content alone.
    ours = os.open(pipe, os.O_RDWR)
    process = site.begin("launch", str(pipe))
    try:
        until(lambda: str(pipe) in open_files(process.pid), "it reads")
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    assert site.json("list") == []
    assert site.operations() == set()
    site.has_nothing()


@pytest.mark.parametrize("when", ["reserved", "Create nodes", "first container"])
def test_a_killed_launch_is_cleaned_up_by_destroy(site: Site, template: str, when: str) -> None:
    cut = site.cut_off(moment(site, when), "launch", template)
    assert cut.code == -signal.SIGKILL
    site.run("destroy", "lab", "--yes")
    site.has_nothing()
    assert site.json("list") == []


@pytest.mark.parametrize("when", ["reserved", "Create nodes", "first container", "Wait until"])
def test_a_killed_launch_is_finished_by_the_same_command(
    site: Site, template: str, when: str
) -> None:
    site.cut_off(moment(site, when), "launch", template)
    status = site.status()
    assert status["operation"]["state"] == "interrupted"
    assert status["operation"]["verb"] == "launch"
    for node in status["nodes"]:
        assert node["state"] == "ready" or node["reason"], node
    site.run("launch", template)
    site.is_as_wanted(BOTH)
    assert site.status()["operation"]["state"] == "done"
    if when != "Wait until":  # the next tests go on with this one
        site.run("destroy", "lab", "--yes")
        site.has_nothing()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_expand_ends_in_order_and_is_finished(
    site: Site, how: signal.Signals
) -> None:
    before = site.starts()
    cut = site.cut_off("Create nodes", "expand", "lab", with_signal=how)
    assert cut.code == 1
    assert "Interrupted" in cut.err
    assert site.leftovers() == []
    operation = site.status()["operation"]
    assert (operation["state"], operation["verb"]) == ("interrupted", "expand")
    site.run("expand", "lab")
    site.is_as_wanted(ALL)
    after = site.starts()
    assert {name: after[name] for name in before} == before
    site.run("shrink", "lab")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize("when", ["reserved", "Create nodes", "first container", "Wait until"])
def test_a_killed_expand_adds_its_nodes_once(site: Site, when: str) -> None:
    if "worker-2" in site.nodes():
        site.run("shrink", "lab")
    before = site.starts()
    site.cut_off(moment(site, when), "expand", "lab")
    assert site.status()["operation"]["state"] == "interrupted"
    again = site.run("expand", "lab")
    assert "Finish the expand that was cut off" in again.out
    site.is_as_wanted(ALL)
    after = site.starts()
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("when", ["reserved", "Let nodes leave", "Remove nodes"])
def test_a_killed_shrink_removes_its_nodes_once(site: Site, when: str) -> None:
    if "worker-2" not in site.nodes():
        site.run("expand", "lab")
    site.cut_off(moment(site, when), "shrink", "lab")
    status = site.status()
    assert status["operation"]["state"] == "interrupted"
    leaving = {node["name"]: node["state"] for node in status["nodes"]}.get("worker-2")
    assert leaving == "deleting"
    site.run("shrink", "lab")
    site.is_as_wanted(BOTH)


def test_what_a_killed_shrink_left_is_not_forgotten_by_other_operations(site: Site) -> None:
    site.run("expand", "lab")
    site.cut_off(new_operation(site), "shrink", "lab")
    site.run("restart", "lab")
    assert "worker-2" in {node["name"] for node in site.status()["nodes"]}
    site.run("repair", "lab")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize("when", ["reserved", "Stop nodes"])
def test_a_killed_stop_is_finished(site: Site, when: str) -> None:
    site.cut_off(moment(site, when), "stop", "lab")
    site.run("stop", "lab")
    assert site.running() == []
    assert site.status()["health"] == "green"
    site.run("start", "lab")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize("when", ["reserved", "Create nodes", "Wait until"])
def test_a_killed_start_is_finished(site: Site, when: str) -> None:
    site.run("stop", "lab")
    site.cut_off(moment(site, when), "start", "lab")
    site.run("start", "lab")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize("when", ["Stop nodes", "Create nodes"])
def test_a_killed_restart_is_finished(site: Site, when: str) -> None:
    site.cut_off(when, "restart", "lab")
    site.run("restart", "lab")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize("when", ["reserved", "Destroy the cluster", "removed"])
def test_a_killed_destroy_is_finished(site: Site, template: str, when: str) -> None:
    if not site.json("list"):
        site.run("launch", template)
    site.cut_off(moment(site, when), "destroy", "lab", "--yes")
    clusters = site.json("list")
    if clusters:  # it may have come to its end in the very moment
        refused = site.run("launch", template, code=2)
        assert "half destroyed" in refused.err
        site.run("destroy", "lab", "--yes")
    site.has_nothing()


def test_a_reader_who_leaves_does_not_cut_a_launch_off(site: Site, template: str) -> None:
    process = site.begin("launch", template)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    with process:
        assert process.wait(life_support.LIMIT_SECONDS) == 0
    site.is_as_wanted(BOTH)
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


def test_files_of_the_state_are_for_their_owner_only(site: Site) -> None:
    def open_to_others(path: Path) -> bool:
        return bool(path.stat().st_mode & 0o077)

    assert not open_to_others(site.home)
    for folder in (site.home / "operations").iterdir():
        assert not open_to_others(folder)
