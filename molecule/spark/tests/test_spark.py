"""A master that knows its worker, and settings that fit the nodes."""

from __future__ import annotations

import json

import pytest

NODES = ["master-1", "worker-1"]
ALL_NODES = [*NODES, "history-1"]


@pytest.fixture(scope="module")
def said_by_master(node):
    return json.loads(node("master-1").check_output("curl -sf http://localhost:8080/json/"))


@pytest.fixture(scope="module")
def settings(node):
    def read(name):
        text = node(name).file("/etc/spark/conf/spark-defaults.conf").content_string
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return dict(line.split(" ", 1) for line in lines)

    return read


def test_the_master_knows_its_worker(said_by_master):
    assert said_by_master["url"] == "spark://lab-master-1:7177"
    assert said_by_master["aliveworkers"] == 1
    (worker,) = said_by_master["workers"]
    assert (worker["host"], worker["state"]) == ("lab-worker-1", "ALIVE")


def test_a_worker_offers_what_its_node_can_give(said_by_master):
    (worker,) = said_by_master["workers"]
    assert worker["cores"] == 1
    # Of 1,024 MiB the daemon and the system keep a part.
    assert worker["memory"] == 512


@pytest.mark.parametrize("name", ALL_NODES)
def test_every_node_can_run_a_driver_that_writes_a_log(settings, name):
    found = settings(name)
    assert found["spark.eventLog.enabled"] == "true"
    assert found["spark.eventLog.dir"] == "file:/tenant/events/lab"
    assert found["spark.master"] == "spark://lab-master-1:7177"
    assert found["spark.driver.memory"] == found["spark.executor.memory"] == "512m"
    assert found["spark.decommission.enabled"] == "true"


@pytest.mark.parametrize("name", NODES)
def test_settings_of_the_inventory_are_added_and_win(settings, name):
    found = settings(name)
    assert found["spark.sql.shuffle.partitions"] == "4"
    assert found["spark.sql.warehouse.dir"] == "file:///tenant/tables"


@pytest.mark.parametrize(
    ("name", "user"),
    [("master-1", "spark"), ("worker-1", "spark"), ("history-1", "spark-history")],
)
def test_a_daemon_is_one_process_of_a_service_account(node, name, user):
    daemon = node(name).process.get(comm="java")
    # ps shortens names.
    assert int(daemon.uid) == node(name).user(user).uid


def test_logs_are_added_by_everybody_and_seen_by_the_history_server_alone(node):
    folder = node("worker-1").file("/tenant/events/lab")
    assert (folder.user, folder.group, folder.mode) == ("spark-history", "spark-history", 0o3773)


def test_the_history_server_answers_and_cleans_up(node):
    history = node("history-1")
    told = history.check_output("curl -sf http://localhost:18181/api/v1/applications")
    assert json.loads(told) == []
    found = history.file("/etc/spark/history/spark-defaults.conf")
    assert found.contains("^spark.history.fs.cleaner.enabled true$")
    assert found.contains("^spark.history.fs.cleaner.maxAge 7d$")


@pytest.mark.parametrize("name", NODES)
def test_directories_are_there_for_who_needs_them(node, name):
    work, scratch = node(name).file("/data/spark"), node(name).file("/data/tmp")
    assert (work.user, work.mode) == ("spark", 0o755)
    assert (scratch.user, scratch.mode) == ("root", 0o1777)


@pytest.mark.parametrize(
    ("name", "service", "line"),
    [
        ("master-1", "spark-master", "Registering worker lab-worker-1"),
        ("worker-1", "spark-worker", "Successfully registered with master"),
        ("history-1", "spark-history", "Bound HistoryServer to"),
    ],
)
def test_a_node_runs_its_own_service_alone_and_keeps_a_log(node, name, service, line):
    assert node(name).check_output("ls /run/epic/services") == service
    assert node(name).file(f"/data/log/{service}/current").contains(line)
