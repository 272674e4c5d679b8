#!/usr/bin/python
"""Ansible module: kernel modules and settings that nodes need, now and after a restart."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_kernel
short_description: Load kernel modules and raise kernel settings, for good
description:
  - Loads the modules and raises the settings, and writes both into files that are read when the
    machine starts. No number is ever lowered, neither now nor by the file.
  - What the kernel does not have or allow is left out and told in the result. In a container the
    settings that belong to the whole machine are left alone; only those of networks are its own.
options:
  modules:
    description: Kernel modules by name, with the reason for each.
    type: dict
    default: {}
  settings:
    description: The least number that each setting is to have.
    type: dict
    default: {}
  modules_file:
    description: The file that names the modules when the machine starts.
    type: path
    default: /etc/modules-load.d/epic.conf
  settings_file:
    description: The file that sets the numbers when the machine starts.
    type: path
    default: /etc/sysctl.d/60-epic.conf
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Let nodes watch files
  epic_kernel:
    modules: {overlay: layers of images}
    settings: {fs.inotify.max_user_instances: 8192}
"""

RETURN = r"""
actions:
  description: What was done, a line each.
  type: list
  returned: success
skipped_items:
  description: What could not be done, and why, by the name of the module or the setting.
  type: dict
  returned: success
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARGUMENT_SPEC: dict[str, Any] = {
    "modules": {"type": "dict", "default": {}},
    "settings": {"type": "dict", "default": {}},
    "modules_file": {"type": "path", "default": "/etc/modules-load.d/epic.conf"},
    "settings_file": {"type": "path", "default": "/etc/sysctl.d/60-epic.conf"},
}

HEADER = "# Written by epic-runner: what the nodes of clusters need of this host.\n"
# Settings that every network namespace has for itself, a container's too.
OF_NETWORK = "net."
# By these files a container knows itself.
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


def settings_to_keep(
    wanted: Mapping[str, int], current: Mapping[str, int], old: str
) -> dict[str, int]:
    """Return the settings that the file is to have.

    One that something else has already set higher is left to that, since the file would lower it
    when the machine starts; one that the file has stays in it.
    """
    named = set(re.findall(r"^([^#=\s]+)\s*=", old, re.MULTILINE))
    return {
        name: value
        for name, value in wanted.items()
        if name in current and (current[name] <= value or name in named)
    }


def settings_to_raise(wanted: Mapping[str, int], current: Mapping[str, int]) -> dict[str, int]:
    """Return the settings that are lower than wanted."""
    return {
        name: value for name, value in wanted.items() if name in current and current[name] < value
    }


def setting_path(name: str) -> Path:
    """Return the file of the kernel that holds a setting."""
    return Path("/proc/sys") / name.replace(".", "/")


def is_loaded(name: str, filesystems: str) -> bool:
    """Whether the kernel has a module, loaded or built in."""
    word = name.replace("-", "_")
    return (
        Path(f"/sys/module/{word}").is_dir()
        or re.search(rf"\t{re.escape(name)}$", filesystems, re.MULTILINE) is not None
        # Built in without options of its own, it shows only by what it does.
        or (word == "br_netfilter" and Path("/proc/sys/net/bridge").is_dir())
    )


class Kernel:
    """The kernel of this host."""

    def __init__(self, params: dict[str, Any], *, check: bool) -> None:
        self.p = params
        self.check = check
        self.actions: list[str] = []
        self.skipped: dict[str, str] = {}

    def load_modules(self) -> None:
        """Load what is missing, and name all that there is in the file."""
        filesystems = Path("/proc/filesystems").read_text(encoding="ascii")
        there = []
        for name, reason in sorted(self.p["modules"].items()):
            if is_loaded(name, filesystems) or self.load(name):
                there.append(f"# {reason}\n{name}\n")
        self.write(self.p["modules_file"], "".join(there))

    def load(self, name: str) -> bool:
        """Load a module; tell why not where that fails."""
        modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if not modprobe:
            self.skipped[name] = "the kernel does not show it, and there is no modprobe"
            return False
        dry = ["--dry-run"] if self.check else []
        done = subprocess.run([modprobe, *dry, name], capture_output=True, text=True, check=False)
        if done.returncode:
            self.skipped[name] = done.stderr.strip() or f"modprobe ended with {done.returncode}"
            return False
        self.actions.append(f"loaded {name}")
        return True

    def raise_settings(self) -> None:
        """Raise what is too low, and keep it so in the file."""
        wanted = {name: int(value) for name, value in self.p["settings"].items()}
        current = self.current(wanted)
        for name, value in settings_to_raise(wanted, current).items():
            try:
                if not self.check:
                    setting_path(name).write_text(str(value), encoding="ascii")
            except OSError as problem:
                self.skipped[name] = f"the kernel refuses {value}: {problem.strerror}"
                del current[name]
            else:
                self.actions.append(f"raised {name} from {current[name]} to {value}")
        try:
            old = Path(self.p["settings_file"]).read_text(encoding="utf-8")
        except FileNotFoundError:
            old = ""
        kept = settings_to_keep(wanted, current, old)
        self.write(
            self.p["settings_file"],
            "".join(f"{name} = {value}\n" for name, value in sorted(kept.items())),
        )

    def current(self, names: Mapping[str, int]) -> dict[str, int]:
        """Return the settings that can be had here, and what they are now."""
        inside = any(Path(mark).exists() for mark in CONTAINER_MARKS)
        found = {}
        for name in sorted(names):
            if inside and not name.startswith(OF_NETWORK):
                self.skipped[name] = "this host is a container: it belongs to the machine below it"
                continue
            try:
                found[name] = int(setting_path(name).read_text(encoding="ascii").split()[0])
            except (OSError, ValueError, IndexError):
                self.skipped[name] = "the kernel does not have it"
        return found

    def write(self, path: str, lines: str) -> None:
        """Write a file, if it is not as wanted; none where it would say nothing."""
        file = Path(path)
        content = HEADER + lines if lines else ""
        if (file.read_text(encoding="utf-8") if file.exists() else "") == content:
            return
        self.actions.append(f"wrote {path}")
        if self.check:
            return
        if not content:
            file.unlink()
            return
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_text(content, encoding="utf-8")
        new.chmod(0o644)
        os.replace(new, file)  # noqa: PTH105 - one of the two is there at any time


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    kernel = Kernel(params, check=check_mode)
    try:
        # Some settings come with a module.
        kernel.load_modules()
        kernel.raise_settings()
    except OSError as problem:
        return {"failed": True, "msg": str(problem), "actions": kernel.actions}
    return {
        "changed": bool(kernel.actions),
        "actions": kernel.actions,
        "skipped_items": kernel.skipped,
    }


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
