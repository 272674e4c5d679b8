"""Passwords of hosts reach plays and no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from life_samples import document, record, spec

from epic_runner import host_inventory, runner
from epic_runner.cli import cli
from epic_runner.events import Step
from epic_runner.host_secrets import apart, in_memory, is_secret, of_environment, without_secrets
from epic_runner.hosts import Host
from epic_runner.inventory import hosts_inventory
from epic_runner.processes import seen_by_plays
from epic_runner.store import Store

VARIABLES = {
    "ansible_connection": "local",
    "ansible_become_password": "{{ of_rack }}",
    "of_rack": "hunter2",
    "rack_domain": "example.com",
}


@pytest.mark.parametrize(
    "name",
    ["ansible_become_pass", "ansible_password", "ansible_ssh_pass", "ansible_become_password",
     "ansible_ssh_private_key_passphrase", "ansible_ssh_private_key", "vault_rack", "api_key",
     "ANSIBLE_SUDO_PASS", "ANSIBLE_HASHI_VAULT_TOKEN"],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["ansible_host", "ansible_ssh_private_key_file", "ansible_become", "ansible_become_method",
     "ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_ASK_PASS", "ANSIBLE_BECOME_ASK_PASS", "epic_cores",
     "ANSIBLE_SSHPASS_PROMPT", "EPIC_VAULT_TOKEN_FILE", "EPIC_VAULT_SECRET_ID_FILE"],
)  # fmt: skip
def test_what_names_a_secrets_place_is_none(name: str) -> None:
    assert not is_secret(name)


def test_what_the_template_of_a_secret_names_is_secret_too() -> None:
    shown, secret = apart(VARIABLES)
    assert shown == {"ansible_connection": "local", "rack_domain": "example.com"}
    assert shown | secret == VARIABLES
    # A template of many is followed to its end, and one that names itself ends as well.
    loop = {"ansible_password": "{{ a }}", "a": "{{ b }}", "b": "{{ a }} {{ ansible_user }}"}
    assert apart({**loop, "ansible_user": "ops"}) == ({"ansible_user": "ops"}, loop)


@given(st.dictionaries(st.sampled_from([*VARIABLES, "vault_x", "epic_rack"]), st.text()))
def test_nothing_is_lost_between_what_is_shown_and_what_is_secret(variables: dict) -> None:
    shown, secret = apart(variables)
    assert shown | secret == variables
    assert not shown.keys() & secret.keys()


def test_secrets_are_taken_out_of_every_group() -> None:
    hosts = {"h1": Host("h1", 1, 1, manager=True, variables=VARIABLES)}
    shown, secrets = without_secrets(hosts_inventory(hosts, {"epic_secrets": "file:x"}))
    assert "hunter2" not in json.dumps(shown)
    assert shown["all"]["vars"] == {"epic_secrets": "file:x"}
    assert list(secrets) == ["h1"]
    assert secrets["h1"]["of_rack"] == "hunter2"


def test_passwords_of_the_environment_become_variables() -> None:
    environment = {"ANSIBLE_BECOME_PASS": "x", "ANSIBLE_SU_PASS": "y", "ANSIBLE_ASK_PASS": "true"}
    assert of_environment(environment) == {
        "ansible_become_password": "x", "ansible_su_pass": "y",
    }  # fmt: skip


def test_without_secrets_there_is_no_file() -> None:
    with in_memory({}, {}) as arguments:
        assert arguments == []


def test_a_play_gets_passwords_that_no_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tmp_path / "content"
    (content / "playbooks").mkdir(parents=True)
    (content / "ansible.cfg").write_text(
        "[inventory]\nenable_plugins = ansible.builtin.script, ansible.builtin.yaml\n"
    )
    (content / "playbooks/look.yml").write_text(
        "- hosts: docker_hosts\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.assert:\n"
        "        that: ansible_become_password == 'hunter2' and ansible_sudo_pass == 's3same'\n"
        "        quiet: true\n"
    )
    monkeypatch.setattr(runner, "content_root", lambda: content)
    monkeypatch.setenv("ANSIBLE_SUDO_PASS", "s3same")
    inventory = hosts_inventory({"h1": Host("h1", 1, 1, variables=VARIABLES)}, {})
    steps: list[Step] = []
    of_play = tmp_path / "operation"
    runner.run_playbook("look", inventory, of_play, operation="x", listener=steps.append)
    files = [path.read_bytes() for path in of_play.rglob("*") if path.is_file()]
    assert any(b"rack_domain" in content for content in files)
    assert not any(b"hunter2" in content or b"s3same" in content for content in files)


def test_an_inventory_with_passwords_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text("key")
    file, vault = tmp_path / "hosts.yml", tmp_path / "group_vars" / "docker_hosts.yml"
    file.write_text("docker_hosts: {hosts: {h1: {}}}")
    host_inventory.read_inventory(file)
    assert (tmp_path / "home/cache/hosts.json").exists()
    vault.parent.mkdir()
    vault.write_text("ansible_become_password: hunter2\n")
    program = Path(sys.executable).parent / "ansible-vault"
    subprocess.run([program, "encrypt", vault], check=True, capture_output=True, env=os.environ)
    found = host_inventory.read_inventory(file)
    assert found["h1"].variables["ansible_become_password"] == "hunter2"
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


def test_a_printed_inventory_tells_which_passwords_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    file = tmp_path / "hosts.yml"
    file.write_text("docker_hosts: {hosts: {local: {ansible_become_pass: hunter2}}}")
    of = spec(1)
    with Store().transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.add_cluster(of, "ada", record(of, "master-1", "worker-1").nodes)
    done = CliRunner().invoke(cli, ["inventory", "lab"], catch_exceptions=False)
    assert "hunter2" not in done.output
    assert "ansible_become_pass of host local" in done.stderr
    assert "docker_hosts" in done.stdout


def test_plays_see_no_secrets_of_the_environment_where_that_is_recorded() -> None:
    environment = {"ANSIBLE_BECOME_PASS": "x", "ANSIBLE_VAULT_PASSWORD_FILE": "/key"}
    assert "ANSIBLE_BECOME_PASS" not in seen_by_plays(environment)
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in seen_by_plays(environment)
    assert "ANSIBLE_BECOME_PASS" in seen_by_plays(environment, is_recorded=False)
