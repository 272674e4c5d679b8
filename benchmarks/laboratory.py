"""The hosts of scripts/lab, for benchmarks of several hosts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml
from common import run

ROOT = Path(__file__).resolve().parent.parent
LAB = os.environ.get("EPIC_LAB", "benchmark")


class Hosts:
    """The laboratory's hosts, by plain ssh.

    Args:
        env: The environment with the EPIC_HOME that the laboratory is in.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self.env = {**env, "EPIC_LAB": LAB, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        run(str(ROOT / "scripts" / "lab"), "up", env=self.env)
        self.inventory = run(str(ROOT / "scripts" / "lab"), "inventory", env=self.env).strip()
        group = yaml.safe_load(Path(self.inventory).read_text(encoding="utf-8"))["docker_hosts"]
        self.addresses = [host["ansible_host"] for host in group["hosts"].values()]
        self._options = [
            "-i", group["vars"]["ansible_ssh_private_key_file"],
            *group["vars"]["ansible_ssh_common_args"].split(),
        ]  # fmt: skip

    def ssh(self, address: str, command: str, *options: str) -> list[str]:
        """Return the command that runs `command` on a host."""
        return ["ssh", *self._options, *options, f"root@{address}", command]

    def at_once(self, command: str) -> None:
        """Run a command on all hosts at once."""
        self.all_done([self.ssh(address, command) for address in self.addresses])

    def all_done(self, commands: list[list[str]]) -> None:
        """Run commands at once; raise if one fails."""
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for command in commands
        ]
        for process in started:
            out, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"{process.args!r} ended with {process.returncode}: {out!r}")

    def emptied(self) -> None:
        """Remove all images from the hosts."""
        self.at_once("docker images -q | sort -u | xargs -r docker rmi -f >/dev/null")

    def down(self) -> None:
        """Remove the laboratory."""
        run(str(ROOT / "scripts" / "lab"), "down", env=self.env)
