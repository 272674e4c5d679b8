"""A laboratory on which several test files work: hosts, commands on them, and what harms them.

The fixtures are in `conftest`: `spread` is the laboratory with prepared hosts, `third` a host that
may be harmed. A file that uses them belongs to the group "lab", so that one process has them all.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from life_support import Site, until

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTS = ["host-1", "host-2", "host-3"]
# What the addresses of laboratories are part of.
LAB_ADDRESSES = "198.18.0.0/16"


# What happens to a host, beside the verbs of Docker: its packets are lost in both directions while
# all on it goes on; its engine hangs; its engine dies, and is started anew by what keeps it; it is
# closed to packets between nodes.
HARM = {
    "cut": "iptables -I INPUT -i eth0 -j DROP; iptables -I OUTPUT -o eth0 -j DROP",
    "hang": "pkill -STOP -x dockerd",
    "engine": "pkill -KILL -x dockerd",
    "overlay": "iptables -I INPUT -i eth0 -p udp --dport 4789 -j DROP",
}
MEND = (
    "iptables -D INPUT -i eth0 -j DROP; iptables -D OUTPUT -o eth0 -j DROP; "
    "iptables -D INPUT -i eth0 -p udp --dport 4789 -j DROP; "
    "pkill -CONT -x dockerd; true"
)


class Spread:
    """A site on a laboratory of its own."""

    def __init__(self, site: Site, lab: str) -> None:
        self.site = site
        self.lab = lab

    def call(self, *words: str) -> str:
        """Run `scripts/lab WORD...` and return its output."""
        done = subprocess.run(
            [str(ROOT / "scripts" / "lab"), *words],
            capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "EPIC_LAB": self.lab, "EPIC_HOME": str(self.site.home)},
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def on(self, host: str, *command: str) -> str:
        """Run a command on a host."""
        return self.call("ssh", host, *command)

    def machine(self, verb: str, host: str) -> None:
        """Kill, start, pause a simulated host."""
        subprocess.run(["docker", verb, f"epic-{self.lab}-{host}"], check=True, capture_output=True)

    def harm(self, host: str, how: str) -> None:
        """Have a fault on a host: one of `FAULTS`."""
        if how in ("kill", "pause", "restart"):
            self.machine(how, host)
        else:
            self.within(host, HARM[how])

    def mend(self, host: str) -> None:
        """End whatever fault a host has, and wait until it is as well as before."""
        state = ["docker", "inspect", "-f", "{{.State.Status}}", f"epic-{self.lab}-{host}"]
        found = subprocess.run(state, check=True, capture_output=True, text=True).stdout.strip()
        if found == "paused":
            self.machine("unpause", host)
        elif found != "running":
            self.machine("start", host)
        self.within(host, MEND)
        until(lambda: self.answers(host), f"{host} is back", pause=0.5)

    def within(self, host: str, line: str) -> None:
        """Run a shell's line on a host as root, past ssh."""
        command = ["docker", "exec", f"epic-{self.lab}-{host}", "bash", "-c", line]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def answers(self, host: str) -> bool:
        """Tell whether a host's engine answers."""
        try:
            return bool(self.on(host, "docker", "version", "--format", "'{{.Server.Version}}'"))
        except AssertionError:
            return False

    def another(self, folder: Path) -> Site:
        """Return a site of another tenant, with the same hosts and store."""
        (folder / "home").symlink_to(self.site.home)
        return Site(folder)

    def places(self, cluster: str) -> dict[str, str]:
        """Return the host of each node, as `status` has it."""
        return {node["name"]: node["host"] for node in self.site.status(cluster)["nodes"]}

    def containers(self, host: str) -> list[str]:
        """Return the names of the tenant's containers on a host."""
        wanted = f"label=epic.tenant={self.site.tenant}"
        names = self.on(host, "docker", "ps", "-a", "--format", "'{{.Names}}'", "--filter", wanted)
        return sorted(names.split())

    def inside(self, node: str, command: str, cluster: str = "wide") -> str:
        """Run a shell's line in a node, as a member."""
        return self.site.run("shell", cluster, node, "--", "bash", "-c", command).out.strip()
