"""Brings images of the controller to a host: the controller's side of the module epic_images.

A host that has all of them costs one look. Else the images go into a registry, once, whatever the
number of hosts, and the host pulls them from there. The controller's own registry is reached
through a connection of its own to the host, made as Ansible makes it, which ends with this process,
however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.loader import action_loader, module_utils_loader
from ansible.utils.display import Display

SOCKET = "/var/run/docker.sock"
PUSH_TIMEOUT_SECONDS = 900.0
FORWARD_SECONDS = 30.0
TELL_SECONDS = 2.0

# What the far end of the connection runs: it tells that the port is open, and ends when this
# process does, because nobody else can write to its input.
STAY = "echo epic-ready; exec cat >/dev/null"
# What processors have instructions for; OpenSSH's own first choice, chacha20-poly1305, takes a
# multiple of their time. All are written out: "^" is unknown before OpenSSH 8.1, and a client held
# to FIPS 140 refuses lists with names that it lacks.
QUICK_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr"
OPENED = re.compile(r"Allocated port (\d+) for remote forward")

display = Display()

# It runs own modules with little ado.
Runner: Any = action_loader.get("epic_nodes", class_only=True)


def utility(name: str) -> ModuleType:
    """Import a module of `module_utils` here on the controller."""
    full = f"ansible.module_utils.{name}"
    if full not in sys.modules:
        found = importlib.util.spec_from_file_location(full, module_utils_loader.find_plugin(name))
        if found is None or found.loader is None:
            raise AnsibleActionFail(f"there is no {name}.py among the module_utils")
        sys.modules[full] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[full])
    return sys.modules[full]


class ActionModule(Runner):  # type: ignore[misc]
    """Runs the module epic_images, first to look, then to pull."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bring the images that the host lacks."""
        if self._connection.transport == "local":
            return {"changed": False, "images": {}}
        super(Runner, self).run(tmp, task_vars)
        self._vars = task_vars or {}
        self._docker = utility("epic_docker")
        self._registry = utility("epic_registry")
        params = self.checked(task_vars)
        try:
            return self._bring(params)
        except self._docker.DockerError as problem:
            return {"failed": True, "msg": f"Docker on the controller: {problem}",
                    "hint": "epic-run doctor tells what is wrong with it."}  # fmt: skip
        except self._registry.RegistryError as problem:
            missing = [problem.missing] if problem.missing else []
            return {"failed": True, "msg": str(problem), "hint": problem.hint,
                    "missing_images": missing}  # fmt: skip

    def _bring(self, params: dict[str, Any]) -> dict[str, Any]:
        engine = self._docker.Docker(controller_socket(), PUSH_TIMEOUT_SECONDS)
        images = params["images"]
        answer = self.call(params, self._vars)
        if answer.get("failed"):
            return answer
        found = answer["found"]
        try:
            built = {image: self._registry.find(engine, image) for image in images}
        except self._docker.DockerError:
            # A controller without an engine has nothing to compare with, and nothing to give.
            if not all(found.values()):
                raise
            built = dict.fromkeys(images)
        # What is built elsewhere and came to the host by itself is left as it is.
        unknown = [image for image in images if not built[image] and not found[image]]
        if unknown:
            return {
                "failed": True,
                "msg": f"{', '.join(unknown)} is neither on this host nor built on the controller",
                "missing_images": unknown,
            }
        lacking = [item for item in built.values() if item and found[item.reference] != item.id]
        outcome = dict.fromkeys(images, "unchanged")
        if lacking:
            outcome |= {item.reference: "pulled" for item in lacking}
        if not lacking or self._task.check_mode:
            return {"changed": bool(lacking), "images": outcome, "moved_bytes": 0}
        # One with many layers first: it often has those of the others among them.
        lacking.sort(key=lambda item: -item.layers)
        if params["registry"]:
            return self._through_site(engine, params, lacking, outcome)
        return self._through_own(engine, params, lacking, outcome, found)

    def _through_site(
        self, engine: Any, params: dict[str, Any], lacking: list[Any], outcome: dict[str, str]
    ) -> dict[str, Any]:
        """Push to a registry of the site, and let the host pull from there."""
        site = params["registry"]
        if not self._registry.SITE.fullmatch(site):
            raise self._registry.RegistryError(
                f'"{site}" is no registry',
                "Write it as HOST[:PORT][/PREFIX], such as reg.site:5000/epic.",
            )
        auth = self._registry.authorization(site)
        with self._docker.hold("registry", fcntl.LOCK_EX):
            sources = [
                {"image": item.reference, "source": self._pushed(engine, item, site, auth).source,
                 "auth": auth}
                for item in lacking
            ]  # fmt: skip
        self._tell(f"pulls from {site}")
        answer = self.call({**params, "sources": sources}, self._vars)
        return answer if answer.get("failed") else {"changed": True, "images": outcome}

    def _through_own(
        self,
        engine: Any,
        params: dict[str, Any],
        lacking: list[Any],
        outcome: dict[str, str],
        found: dict[str, str | None],
    ) -> dict[str, Any]:
        """Push to the controller's registry, and let the host pull through SSH."""
        own = self._registry.OwnRegistry(engine, registry_image(), params["container"])
        auth = self._registry.authorization()
        sources = []
        # All hosts of a play ask for the same at once; the first one's push serves them all.
        with self._docker.hold("registry", fcntl.LOCK_EX):
            own.open()
            for item in lacking:
                held = own.held(item) or self._pushed(engine, item, own.address, auth)
                if found[item.reference] in (own.held(item) or held).ids:
                    outcome[item.reference] = "unchanged"
                else:
                    sources.append({"image": item.reference, "source": held.source, "auth": auth})
        if not sources:
            return {"changed": False, "images": outcome, "moved_bytes": 0}
        with self._forward(own.port) as (port, moved), self._telling(moved):
            for source in sources:
                source["source"] = f"127.0.0.1:{port}/{source['source'].partition('/')[2]}"
            answer = self.call({**params, "sources": sources, "forward_port": port}, self._vars)
            if answer.get("failed"):
                return answer
            return {"changed": True, "images": outcome, "moved_bytes": moved()}

    def _pushed(self, engine: Any, item: Any, registry: str, auth: str) -> Any:
        last = time.monotonic()

        def tell(sent: int) -> None:
            nonlocal last
            if time.monotonic() - last > TELL_SECONDS:
                last = time.monotonic()
                self._tell(f"{item.reference} goes to the registry, {megabytes(sent)} so far")

        return self._registry.push(engine, item, registry, auth, tell)

    @contextlib.contextmanager
    def _forward(self, registry_port: int) -> Iterator[tuple[int, Any]]:
        """Open a port on the host's loopback address that leads to the registry's.

        Yields:
            The port, and a function that returns how many bytes went through SSH.
        """
        process = subprocess.Popen(
            self._ssh(registry_port),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield self._opened(process), lambda: written_bytes(process.pid)
        finally:
            process.terminate()
            process.communicate()

    def _ssh(self, registry_port: int) -> list[str]:
        """Return the command of the connection: Ansible's own, and what makes it a forward."""
        connection = self._connection
        if connection.transport != "ssh":
            raise AnsibleActionFail(
                f"images reach a host through ssh; its connection is {connection.transport}: "
                "name a registry that the host reaches by itself (EPIC_REGISTRY)"
            )
        if connection.get_option("password"):
            raise AnsibleActionFail(
                "images reach a host by an SSH key, not by a password: give the host a key "
                "(ansible_ssh_private_key_file), or name a registry (EPIC_REGISTRY)"
            )
        # It alone knows all that inventories may say of a connection.
        built = connection._build_command(  # noqa: SLF001
            connection.get_option("ssh_executable"), "ssh",
            # Behind all that the inventory says, since the first mention of an option counts.
            "-o", f"Ciphers={QUICK_CIPHERS}",
            "-R", f"127.0.0.1:0:127.0.0.1:{registry_port}", connection.host, STAY,
        )  # fmt: skip
        program, *words = [os.fsdecode(word) for word in built]
        # Before all of that. A shared connection would keep the port open for as long as it lasts.
        settings = ("ControlMaster=no", "ControlPath=none", "BatchMode=yes",
                    "ExitOnForwardFailure=yes", "ServerAliveInterval=15")  # fmt: skip
        # Layers are compressed already; `-C`, one of Ansible's own words, would do it again.
        words = [word for word in words if word != "-C"]
        return [program, *(word for setting in settings for word in ("-o", setting)), *words]

    def _opened(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until the port is open and return its number."""
        said = b""
        end = time.monotonic() + FORWARD_SECONDS + self._connection.get_option("timeout")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, end - time.monotonic())):
                data = os.read(process.stdout.fileno(), 4096)
                said += data
                port = OPENED.search(said.decode("utf-8", "replace"))
                if port and b"epic-ready" in said:
                    return int(port[1])
                if not data:
                    break
        lines = said.decode("utf-8", "replace").strip().splitlines()
        raise self._registry.RegistryError(
            f"SSH opens no way back to the registry: {lines[-1] if lines else 'it says nothing'}",
            "Allow it in the host's sshd_config (AllowTcpForwarding yes or remote), or name a "
            "registry that the host reaches by itself (--registry).",
        )

    @contextlib.contextmanager
    def _telling(self, moved: Any) -> Iterator[None]:
        """Tell now and then how much has moved."""
        over = threading.Event()

        def tell() -> None:
            came, told = "", ""
            while not over.wait(TELL_SECONDS):
                now = f"pulls, {megabytes(moved())} so far"
                # What has come has to be unpacked yet.
                came, now = now, now if now != came else "unpacks"
                if now != told:
                    self._tell(now)
                told = now

        thread = threading.Thread(target=tell)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _tell(self, what: str) -> None:
        display.display(f"images: {self._vars['inventory_hostname']}: {what}")


def controller_socket() -> str:
    """Return the socket of the controller's engine, as DOCKER_HOST gives it."""
    path = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
    return path if path.startswith("/") else SOCKET


def registry_image() -> str:
    """Return the reference of the registry's image, from its entry in the catalogue."""
    path = Path(__file__).resolve().parent.parent / "images" / "registry" / "app.yml"
    app = yaml.safe_load(path.read_text(encoding="utf-8"))
    return f"{app['image']}:{app['version']}-r{app['revision']}"


def written_bytes(pid: int) -> int:
    """Return how many bytes a process has written; Linux counts them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def megabytes(count: int) -> str:
    """Return a number of bytes for people, as epic-run writes it."""
    return f"{count / 2**20:.1f}m"
