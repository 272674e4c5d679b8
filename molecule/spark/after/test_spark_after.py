"""A worker that left in order: its daemon is down for good, and the master knows."""

from __future__ import annotations


def test_the_daemon_is_down_and_stays_down(node):
    status = node("worker-1").check_output("s6-svstat /run/epic/services/spark-worker")
    assert status.startswith("down")
    assert not node("worker-1").process.filter(comm="java")


def test_the_master_gives_the_worker_no_more_work(node):
    node("master-1").check_output(
        "epic-wait http http://localhost:8080/json/ --json aliveworkers == 0 --timeout 15"
    )
