"""ansible-playbook, started ahead: same words and same end, or the real one instead."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from epic_runner import ahead

OTHER = ["sh", "-c", "echo the command itself; exit 7"]


@pytest.fixture
def server() -> Iterator[ahead.Ahead]:
    started = ahead.Ahead()
    yield started
    started.end()


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **ahead.settings(), **more}


def relayed(server: ahead.Ahead, *command: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        server.command(command), check=False, env=environment(**variables),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(("fails", "code"), [("false", 0), ("true", 2)])
def test_the_server_plays_with_the_streams_and_the_end_of_the_command(
    server: ahead.Ahead, tmp_path: Path, fails: str, code: int
) -> None:
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n"
        "  gather_facts: false\n"
        "  tasks:\n"
        "    - ansible.builtin.debug: {msg: \"{{ lookup('env', 'MINE') }} is seen\"}\n"
        f"    - ansible.builtin.assert: {{that: not {fails}}}\n",
        encoding="utf-8",
    )
    command = ["/no/such/ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")]
    ended, output = relayed(
        server, *command, MINE="my own",
        AWX_ISOLATED_DATA_DIR=str(tmp_path), ANSIBLE_CACHE_PLUGIN_CONNECTION=str(tmp_path),
    )  # fmt: skip
    assert (ended, "my own is seen" in output) == (code, True), output


def test_a_setting_that_ansible_was_not_imported_with_makes_the_relay_the_command(
    server: ahead.Ahead,
) -> None:
    assert relayed(server, *OTHER, ANSIBLE_FORKS="3") == (7, "the command itself\n")


def test_a_server_that_has_gone_makes_the_relay_the_command(server: ahead.Ahead) -> None:
    server.process.kill()
    server.process.wait()
    assert relayed(server, *OTHER) == (7, "the command itself\n")


def test_a_server_that_is_killed_while_it_plays_is_a_failure(
    server: ahead.Ahead, tmp_path: Path
) -> None:
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n"
        "  gather_facts: false\n"
        f"  tasks: [{{ansible.builtin.wait_for: {{path: {tmp_path}/never}}}}]\n",
        encoding="utf-8",
    )
    relay = subprocess.Popen(
        server.command(["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")]),
        env=environment(AWX_ISOLATED_DATA_DIR=str(tmp_path)),
        stdout=subprocess.PIPE,
    )
    assert relay.stdout
    assert relay.stdout.readline()
    os.killpg(server.process.pid, signal.SIGKILL)
    relay.stdout.close()
    assert relay.wait(30) == 1


def test_a_server_that_nobody_asks_ends_with_its_controller(server: ahead.Ahead) -> None:
    server.end()
    assert server.process.returncode == 0


def test_it_is_imported_with_the_settings_that_ansible_runner_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epic_runner import runner
    from epic_runner.errors import EpicError

    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(ahead, "begun", [ahead.Ahead()])
    taken = ahead.begun[0]
    answered: list[list[str]] = []
    real = taken.command

    def command(asked: list[str]) -> list[str]:
        answered.append(asked)
        # The play fails, for the hosts it wants are not there; were it not the server that plays,
        # there would be no events at all.
        return real(["/no/such/ansible-playbook", *asked[1:]])

    monkeypatch.setattr(taken, "command", command)
    inventory = {"all": {"hosts": {"nowhere": {"ansible_connection": "local"}}}}
    with pytest.raises(EpicError) as caught:
        runner.run_playbook(
            "no-such-verb", inventory, tmp_path / "run", operation="none", listener=print
        )
    assert answered
    assert "could not be found" in (
        next((tmp_path / "run").glob("artifacts/*/stdout")).read_text(encoding="utf-8")
    ), caught.value
