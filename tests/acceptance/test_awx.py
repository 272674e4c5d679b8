"""The content as AWX runs it: in a container, from a project's checkout, by ansible-runner.

AWX runs an inventory source and a job template alike: the project is at /runner/project, which is
where it starts, the inventory is a program that prints JSON, extra variables are in a file, and
nothing else of the controller is there. What its image would hold (execution-environment.yml) comes
from this Python's packages here, since no registry of images need be reachable.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml
from conftest import Cluster
from life_support import DEBIANS_PYTHON

from epic_runner.catalog import load_catalog
from epic_runner.resources import content_root

ROOT = content_root()
SECONDS = 600

pytestmark = [pytest.mark.docker, DEBIANS_PYTHON]


class Awx:
    """A controller's folder of one job."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        subprocess.run(
            ["tar", "--create", "--null", "--files-from=-", "--file", folder / "project.tar"],
            cwd=ROOT, input=listed, check=True,
        )  # fmt: skip
        (folder / "project").mkdir()
        subprocess.run(
            ["tar", "--extract", "--file", folder / "project.tar", "-C", folder / "project"],
            check=True,
        )
        (folder / "project.tar").unlink()
        (folder / "project" / "collections").symlink_to("/collections")

    def container(self) -> dict[str, Any]:
        """Return ansible-runner's settings of process isolation."""
        base = load_catalog(ROOT / "images").get("base")
        assert base is not None
        environment = Path(sys.executable).parent.parent
        return {
            "process_isolation": True,
            "process_isolation_executable": "docker",
            "container_image": base.reference,
            "container_volume_mounts": [
                f"{environment}:{environment}:ro",
                f"{(ROOT / 'collections').resolve()}:/collections:ro",
                # The one host is this machine, and so is the store; else AWX has both by network.
                "/var/run/docker.sock:/var/run/docker.sock",
                f"{self.cluster.site.home}:{self.cluster.site.home}",
            ],
            "container_options": ["--entrypoint=", "--network=none"],
            "envvars": {
                "PATH": f"{environment / 'bin'}:{os.defpath}",
                "PYTHONPATH": "/runner/project",
                "EPIC_HOME": str(self.cluster.site.home),
            },
        }

    def inventory(self, source: str) -> dict[str, Any]:
        """Sync an inventory source, a file of the project: `ansible-inventory --list --export`."""
        out, err = ansible_runner.run_command(
            executable_cmd="ansible-inventory",
            cmdline_args=["-i", source, "--list", "--export"],
            private_data_dir=str(self.folder),
            runner_mode="subprocess",
            container_workdir="/runner/project",
            quiet=True,
            timeout=SECONDS,
            **self.container(),
        )[:2]
        assert "ERROR" not in err, err
        return dict(json.loads(out))

    def run(self, playbook: str, inventory: dict[str, Any], variables: dict[str, Any]) -> Any:
        """Launch a job template with extra variables."""
        hosts = self.folder / "inventory" / "hosts"
        hosts.parent.mkdir(exist_ok=True)
        hosts.write_text(f"#!/bin/sh\ncat <<'JSON'\n{json.dumps(inventory)}\nJSON\n")
        hosts.chmod(0o700)
        return ansible_runner.run(
            private_data_dir=str(self.folder),
            playbook=playbook,
            extravars=variables,
            quiet=True,
            timeout=SECONDS,
            **self.container(),
        )


@pytest.fixture
def awx(tmp_path: Path, cluster: Cluster) -> Awx:
    return Awx(tmp_path, cluster)


def test_the_live_inventory_is_an_inventory_source(awx: Awx) -> None:
    found = awx.inventory("inventories/epic.yml")
    name = awx.cluster.name
    assert found[f"{name}_worker"]["hosts"] == [f"{name}-worker-1"]
    variables = found["_meta"]["hostvars"][f"{name}-worker-1"]
    # So an export marks what is never a template, and so it is read again.
    assert variables["epic_role"] == {"__ansible_unsafe": "worker"}


def test_a_job_template_runs_an_action_and_fails_with_it(awx: Awx) -> None:
    exported = awx.cluster.site.run("inventory", awx.cluster.name).out
    assert yaml.safe_load(exported)
    (awx.folder / "project" / "lab.inventory.yml").write_text(exported)
    inventory = awx.inventory("lab.inventory.yml")
    script = "#!/bin/sh\necho $EPIC_NODE by $(id -un) > /tenant/awx-$EPIC_NODE\n"
    wanted = {
        "action_id": "awx-1",
        "action_user": "bob",
        "action_name": "mark.sh",
        "action_script": base64.b64encode(script.encode()).decode(),
    }
    done = awx.run("playbooks/action.yml", inventory, wanted)
    with done.stdout as text:
        output = text.read()
    # A play that finds no hosts ends well, too.
    assert (done.status, done.rc, set(done.stats["ok"])) == ("successful", 0, {"local"}), output
    told = awx.cluster.run("shell", "--", "sh", "-c", "cat /tenant/awx-*").out
    assert sorted(told.splitlines()) == ["master-1 by bob", "worker-1 by bob"]
    # What AWX shows of a job, and what it tells programs, are its events and its exit code.
    events = [event["event"] for event in done.events]
    assert "playbook_on_stats" in events
    failing = base64.b64encode(b"#!/bin/sh\nexit 3\n").decode()
    failed = awx.run(
        "playbooks/action.yml",
        inventory,
        {**wanted, "action_id": "awx-2", "action_script": failing},
    )
    assert (failed.status, failed.rc) == ("failed", 2)
