"""Schedules on a real cluster: a job is kept, run once when it is due, and its history told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import JOB_SECONDS, Cluster
from life_support import DEBIANS_PYTHON, until

from epic_runner.catalog import load_catalog
from epic_runner.resources import content_root

pytestmark = pytest.mark.docker

ROOT = content_root()
# So late in the future that the clock begins nothing by itself.
NEVER = "0 0 29 2 *"


def add(cluster: Cluster, folder: Path, name: str, program: str, schedule: Any) -> dict[str, Any]:
    """Schedule a shell program on a cluster, and let its files vanish."""
    script = folder / f"{name}.sh"
    script.write_text(program)
    job = {
        "kind": "Job", "name": name, "cluster": {"name": cluster.name},
        "submit": {"file": script.name, "args": ["a b"]}, "schedule": schedule,
    }  # fmt: skip
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(job))
    try:
        [record] = cluster.site.json("schedule", "add", str(path), "--as", "bob")
    finally:
        script.unlink()
        path.unlink()
    return dict(record)


def shown(cluster: Cluster, name: str) -> dict[str, Any]:
    return dict(cluster.site.json("schedule", "show", name))


def states(cluster: Cluster, name: str) -> list[str]:
    return [run["state"] for run in shown(cluster, name)["runs"]]


def run_now(cluster: Cluster, name: str, code: int) -> str:
    process = cluster.site.begin("schedule", "run-now", name)
    out, err = process.communicate(timeout=JOB_SECONDS)
    assert process.returncode == code, out + err
    return out


def test_a_job_runs_without_its_files_as_its_member_and_its_history_is_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    record = add(cluster, tmp_path, "mark", 'echo "$1 by $(id -un)"; exit ${RC:-0}', NEVER)
    assert (record["tenant"], record["user"]) == (cluster.site.tenant, "bob")
    out = run_now(cluster, "mark", 0)
    assert "a b by bob" in out
    [run] = shown(cluster, "mark")["runs"]
    assert (run["state"], run["rc"], run["cause"]) == ("done", 0, "asked")
    assert "a b by bob" in Path(run["log"]).read_text()
    listed = cluster.site.json("schedule", "list")
    assert {item["name"]: item["last"]["state"] for item in listed}["mark"] == "done"
    cluster.site.run("schedule", "remove", "mark", "--yes")
    assert cluster.site.run("schedule", "show", "mark", code=2).err


def test_a_job_that_fails_is_tried_again_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    add(cluster, tmp_path, "fails", "exit 7", {"cron": NEVER, "retries": 1, "retry_after": "1s"})
    run_now(cluster, "fails", 7)
    assert states(cluster, "fails") == ["waiting", "failed"]
    until(
        lambda: (
            cluster.site.run("schedule", "serve", "--once", "--no-sweep").code == 0
            and states(cluster, "fails") == ["failed", "failed"]
        ),
        "the second attempt",
        pause=2,
    )
    assert [run["attempt"] for run in shown(cluster, "fails")["runs"]] == [2, 1]


def test_services_share_a_store_and_a_run_outlives_the_one_that_began_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Two services; every minute a run of more than a minute, of which only one goes on."""
    program = "echo begin; until [ -e /tenant/go ]; do sleep 0.2; done; echo end"
    add(cluster, tmp_path, "minutely", program, "* * * * *")
    services = [
        subprocess.Popen(
            [sys.executable, "-u", "-m", "epic_runner", "schedule", "serve", "--no-sweep"],
            env=cluster.site.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        until(lambda: states(cluster, "minutely")[:1] == ["running"], "a run", pause=2)
        until(lambda: "skipped" in states(cluster, "minutely"), "the next one", pause=2)
    finally:
        for service in services:
            service.send_signal(signal.SIGTERM)
        said = [service.communicate(timeout=60)[0] for service in services]
    assert [service.returncode for service in services] == [0, 0]
    assert "".join(said).count("is running") == 1
    assert all("goes on" in text for text in said)
    [going] = [run for run in shown(cluster, "minutely")["runs"] if run["state"] == "running"]
    os.kill(going["pid"], 0)
    cluster.site.run("schedule", "pause", "minutely")
    cluster.run("shell", "--", "touch", "/tenant/go")
    until(lambda: states(cluster, "minutely")[-1] == "done", "the run's end", pause=2)
    done = shown(cluster, "minutely")["runs"][-1]
    assert Path(done["log"]).read_text().count("begin") == 1
    assert "end" in Path(done["log"]).read_text()


def test_a_run_whose_process_is_killed_is_interrupted_and_its_job_cancelled(
    cluster: Cluster, tmp_path: Path
) -> None:
    add(cluster, tmp_path, "killed", "echo begin; sleep 600", NEVER)
    key = cluster.site.run("schedule", "run-now", "killed", "--background").out.strip()
    until(lambda: "begin" in _log(cluster, "killed"), "the job has begun", pause=1)
    [run] = shown(cluster, "killed")["runs"]
    assert run["id"] == key
    busy = cluster.site.run("schedule", "run-now", "killed", code=1)
    assert "runs already" in busy.err
    os.kill(run["pid"], signal.SIGKILL)
    cluster.site.run("schedule", "serve", "--once", "--no-sweep")
    assert states(cluster, "killed") == ["interrupted"]
    # Its job does not go on beside the run that may take its place.
    job = cluster.site.json("job", "list", cluster.name, "-n", "1")[0]
    until(
        lambda: cluster.site.json("job", "show", job["id"])["state"] == "cancelled",
        "the job has ended",
    )


def _log(cluster: Cluster, name: str) -> str:
    path = shown(cluster, name)["runs"][0]["log"]
    return Path(path).read_text() if path and Path(path).exists() else ""


@pytest.fixture(scope="module")
def machine(cluster: Cluster) -> Iterator[list[str]]:
    """A machine with systemd and cron, this Python, the store and the engine; how to be on it."""
    base = load_catalog(ROOT / "images").get("base")
    assert base is not None
    tag = "epic/test-timers"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "--build-arg",
         f"PARENT_IMAGE={base.reference}", ROOT / "tests" / "timers"],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    environment = Path(sys.executable).parent.parent
    name = f"epic.{cluster.site.tenant}.timers"
    mounts = {
        *(f"{path}:{path}:ro" for path in (ROOT, environment, (ROOT / "collections").resolve())),
        f"{cluster.site.home}:{cluster.site.home}",
        "/var/run/docker.sock:/run/host.sock",
    }
    subprocess.run(
        ["docker", "run", "--detach", "--name", name, "--network", "none",
         "--cgroupns", "private", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
         "--security-opt", "apparmor=unconfined", "--tmpfs", "/run",
         *(word for mount in sorted(mounts) for word in ("--volume", mount)), tag],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        variables = {
            "EPIC_HOME": str(cluster.site.home),
            "XDG_RUNTIME_DIR": "/run/user/0",
            "DOCKER_HOST": "unix:///run/host.sock",
            "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        }
        given = [word for item in variables.items() for word in ("--env", "=".join(item))]
        on = ["docker", "exec", *given, name]
        # As docs/schedules.md has it for machines without a login.
        linger = [*on, "loginctl", "enable-linger", "root"]
        until(
            lambda: subprocess.run(linger, check=False).returncode == 0,
            "systemd is there",
            seconds=60,
        )
        ready = [*on, "systemctl", "--user", "is-system-running", "--wait"]
        until(
            lambda: subprocess.run(ready, check=False).returncode == 0,
            "the systemd of root",
            seconds=60,
        )
        yield on
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True)


@DEBIANS_PYTHON
@pytest.mark.parametrize("how", ["systemd", "cron"])
def test_what_is_due_is_begun_by_what_was_installed(
    cluster: Cluster, machine: list[str], tmp_path: Path, how: str
) -> None:
    def serve(*words: str) -> None:
        command = [*machine, "python3", "-m", "epic_runner", "schedule", "serve", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def begins() -> bool:
        found = shown(cluster, how)["runs"]
        return bool(found) and found[0]["state"] == "done"

    # Longer than the call that begins it, which must not take it along when it ends.
    add(cluster, tmp_path, how, "sleep 5; echo by $(id -un)", "* * * * *")
    serve("--install", how)
    try:
        until(begins, f"{how} begins what is due", pause=2)
    finally:
        serve("--uninstall", how)
    [run] = shown(cluster, how)["runs"][:1]
    assert (run["rc"], run["cause"]) == (0, "schedule")
    assert "by bob" in Path(run["log"]).read_text()
    cluster.site.run("schedule", "remove", how, "--yes")
    left = ["sh", "-c", "crontab -l 2>/dev/null; systemctl --user list-timers --all | grep epic"]
    assert subprocess.run([*machine, *left], capture_output=True, check=False).stdout == b""


def test_what_would_be_installed_is_shown_and_holds_no_password(cluster: Cluster) -> None:
    site = cluster.site
    printed = site.run("schedule", "serve", "--install", "cron", "--dry-run").out
    assert printed.rstrip().endswith("# epic-run schedule")
    assert f"export EPIC_HOME={site.home}" in printed
    assert not (site.home / "schedule.env").exists()
    assert json.loads(site.run("schedule", "list", "-o", "json").out) is not None
