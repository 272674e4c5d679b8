"""Which Docker hosts there are: an ordinary Ansible inventory, read by Ansible itself.

The inventory is the file, folder or script that `EPIC_INVENTORY` names, else `hosts.yml` under
`EPIC_HOME`. `ansible-inventory` takes most of a second, so what it says of files is kept until one
of them changes; what a script says is not, and neither is what holds passwords.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epic_runner.errors import InputError
from epic_runner.host_secrets import apart
from epic_runner.resources import content_root, home, private_directory

GROUP = "docker_hosts"
FILE = "hosts.yml"

# Kinds of inventories that Ansible itself can read, its scripts and plugins too.
_PLUGINS = "host_list,script,auto,yaml,ini,toml"


@dataclass(frozen=True)
class Entry:
    """A host of the inventory.

    Attributes:
        name: Its name there.
        variables: All of its variables, those of its groups among them.
        group: The group below `docker_hosts` that it is in: its rack, if no variable names one.
    """

    name: str
    variables: Mapping[str, Any]
    group: str = ""


def inventory_path() -> Path | None:
    """Return the inventory of hosts; None where there is none, and this machine is the only host.

    Raises:
        InputError: `EPIC_INVENTORY` names what is not there.
    """
    named = os.environ.get("EPIC_INVENTORY")
    path = Path(named).expanduser() if named else home() / FILE
    if path.exists():
        return path.absolute()
    if named:
        raise InputError(
            f"EPIC_INVENTORY is {named}, and there is no such file.",
            "Name an Ansible inventory with the group docker_hosts, or unset it.",
        )
    return None


def read_inventory(path: Path) -> dict[str, Entry]:
    """Return the hosts of an inventory by name, in its order: group `docker_hosts`, else all.

    Raises:
        InputError: Ansible cannot read it, or it has no hosts.
    """
    stamp = _stamp(path)
    data = _remembered(_cache(), stamp) or _read(path)
    if _holds_secrets(data):
        # What Ansible Vault protects is decrypted by now. One of an earlier version may be there.
        _cache().unlink(missing_ok=True)
    elif stamp:
        cache = private_directory(_cache().parent) / _cache().name
        kept = cache.with_suffix(f".{os.getpid()}")
        kept.write_text(json.dumps({"stamp": stamp, "inventory": data}), encoding="utf-8")
        kept.chmod(0o600)
        kept.replace(cache)
    found = entries(data)
    if not found:
        raise InputError(
            f"{path}: There are no hosts in it.", f"Put Docker hosts into the group {GROUP}."
        )
    return found


def remembered(path: Path) -> dict[str, Entry]:
    """Return the hosts of an inventory as it was last read; none if that was before a change."""
    return entries(_remembered(_cache(), _stamp(path)) or {})


def _holds_secrets(data: Mapping[str, Any]) -> bool:
    return any(apart(variables)[1] for variables in _variables(data).values())


def entries(data: Mapping[str, Any]) -> dict[str, Entry]:
    """Return the hosts in the output of `ansible-inventory --list`: a pure function."""
    variables = _variables(data)
    top = GROUP if GROUP in data else "all"
    found = {}
    for name in _members(data, top):
        children = data.get(top, {}).get("children", []) if top == GROUP else []
        group = next((child for child in children if name in _members(data, child)), "")
        found[name] = Entry(name, variables.get(name, {}), group)
    return found


def _variables(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(data.get("_meta", {}).get("hostvars", {}))


def _members(data: Mapping[str, Any], group: str) -> dict[str, None]:
    item = data.get(group, {})
    members = dict.fromkeys(item.get("hosts", []))
    for child in item.get("children", []):
        members |= _members(data, child)
    return members


def _read(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list"],
        check=False, capture_output=True, text=True,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
            "ANSIBLE_INVENTORY_ENABLED": _PLUGINS,
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        },
    )  # fmt: skip
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        raise InputError(
            f"{path}: Ansible cannot read this inventory: {_reason(done.stderr)}",
            f"ansible-inventory -i {path} --list says more.",
        ) from None


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no output")


def _cache() -> Path:
    return home() / "cache" / "hosts.json"


def _stamp(path: Path) -> list[list[Any]]:
    """Return what changes when the inventory does; empty where only running it would tell."""
    found = []
    for file in sorted(_files(path)):
        state = file.stat()
        if state.st_mode & 0o111 and "_vars" not in file.parent.name:
            return []
        found.append([str(file), state.st_mtime_ns, state.st_size])
    return found


def _files(path: Path) -> Iterator[Path]:
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
        return
    yield path
    for beside in ("group_vars", "host_vars"):
        yield from (file for file in (folder / beside).rglob("*") if file.is_file())


def _remembered(cache: Path, stamp: list[list[Any]]) -> dict[str, Any] | None:
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
        return dict(kept["inventory"]) if stamp and kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
