"""What the role `docker_host` makes of a machine that had neither Docker nor Python."""

from __future__ import annotations

import json
import re

import pytest


@pytest.fixture
def machine(node):
    return node("machine")


def test_docker_was_installed_and_answers(machine):
    assert machine.package("docker.io").is_installed
    assert json.loads(machine.check_output("docker version -f '{{json .Server.Version}}'"))


def test_python_was_installed_for_modules(machine):
    assert machine.check_output("/usr/bin/python3 -c 'print(1)'") == "1"


def test_the_host_is_the_manager_of_a_swarm_of_its_own(machine):
    assert machine.check_output("docker node ls -f role=manager -f name=machine -q")
    labels = "docker node inspect self -f '{{json .Spec.Labels}}'"
    assert json.loads(machine.check_output(labels)) == {"epic.host": "machine"}


def test_overlays_can_be_made(machine):
    machine.check_output("docker network create -d overlay --attachable --internal span")
    machine.check_output("docker network rm span")


def test_accounts_that_were_named_use_docker(machine):
    assert machine.check_output("su ops -c 'docker ps -q'") == ""
    assert machine.run("su nobody -s /bin/sh -c 'docker ps -q'").failed


def test_settings_are_kept_for_the_next_start(machine):
    kept = machine.file("/etc/sysctl.d/60-epic.conf")
    assert kept.contains("^net.ipv4.ip_forward = 1$")
    assert kept.mode == 0o644
    # A container's kernel is its machine's: what is not its own is left alone.
    assert not kept.contains("max_map_count")
    assert machine.file("/etc/modules-load.d/epic.conf").contains("^overlay$")


def test_the_storage_of_tenants_is_marked(machine):
    assert re.fullmatch("[0-9a-f]{32}", machine.file("/srv/.epic-storage").content_string.strip())


def test_a_firewall_that_runs_lets_the_other_hosts_in_and_nobody_else(machine):
    told = machine.check_output("ufw status")
    ports = re.findall(r"^(\S+) +ALLOW +192\.0\.2\.12 ", told, re.MULTILINE)
    assert sorted(ports) == ["2377/tcp", "4789/udp", "7946/tcp", "7946/udp"]
    assert told.count("ALLOW") == 4
