"""Secrets among the variables of hosts, which plays get without any file of ours having them.

Ansible decrypts what Vault protects as it reads an inventory, so a password for sudo comes to us in
clear. It goes to a play in a file that is in memory alone; in caches, kept inventories and what is
printed it is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET = re.compile(
    r"(?i)pass(wd|word|phrase)?s?$|secret|token|credential|(api|access|private)_?key$|^vault_"
)
# Where a secret is, or whether to ask for one, is none.
_NO_SECRET = re.compile(r"(?i)_(file|path|prompt)$|(^|_)ask_")
# Settings of become plugins: each is a variable as well, whose name is the same in small letters.
_BECOME = re.compile("ANSIBLE_[A-Z]+_PASS")
_NAME = re.compile(r"[A-Za-z_]\w*")


def is_secret(name: str) -> bool:
    """Whether a variable holds a secret, as far as its name tells."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.search(name)


def apart(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the variables of a host that anybody may see, and the others.

    What a secret's template names is secret, too, whatever it is called: a password is often
    written as `{{ password_of_rack_a }}`.
    """
    secret = {name for name in variables if is_secret(name)}
    new = secret
    while new:
        named = {word for name in new for word in _NAME.findall(_template(variables[name]))}
        # Of Ansible's own variables only passwords are secrets: `{{ ansible_user }}` may be in one.
        new = {name for name in named & variables.keys() - secret if not _is_ours(name)}
        secret |= new
    shown = {name: value for name, value in variables.items() if name not in secret}
    return shown, {name: variables[name] for name in variables if name in secret}


def without_secrets(inventory: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an inventory without its hosts' secrets, and these by host.

    Args:
        inventory: Groups by name, as in a YAML file.
    """
    found: dict[str, dict[str, Any]] = {}

    def cleared(group: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(group)
        if "hosts" in group:
            made["hosts"] = {}
            for name, variables in group["hosts"].items():
                made["hosts"][name], secret = apart(variables or {})
                if secret:
                    found.setdefault(name, {}).update(secret)
        if "children" in group:
            made["children"] = {
                name: cleared(child or {}) for name, child in group["children"].items()
            }
        return made

    return {name: cleared(group) for name, group in inventory.items()}, found


def of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the passwords for becoming root that an environment has, as variables of hosts."""
    return {
        # Of a password's names this one is the weakest: what the inventory says stays in front.
        "ansible_become_password" if name == "ANSIBLE_BECOME_PASS" else name.lower(): value
        for name, value in environment.items()
        if _BECOME.fullmatch(name) and is_secret(name)
    }


@contextlib.contextmanager
def in_memory(
    of_hosts: Mapping[str, Mapping[str, Any]], of_all: Mapping[str, Any]
) -> Iterator[list[str]]:
    """Keep an inventory of secrets for a play; give the arguments with which Ansible reads it.

    The file is in no file system: it is gone with this process, however that ends, and only who may
    read this process's memory can open it.
    """
    if not of_hosts and not of_all:
        yield []
        return
    file = os.memfd_create("epic-host-secrets")
    try:
        # It is born with all rights, and Ansible runs an inventory that it may run.
        os.fchmod(file, 0o600)
        content = {"all": {"hosts": dict(of_hosts), "vars": dict(of_all)}}
        with open(file, "w", encoding="utf-8", closefd=False) as stream:
            json.dump(content, stream)
        yield ["-i", f"/proc/{os.getpid()}/fd/{file}"]
    finally:
        os.close(file)


def _template(value: Any) -> str:
    text = str(value)
    return text if "{{" in text or "{%" in text else ""


def _is_ours(name: str) -> bool:
    return name.startswith(("ansible_", "epic_"))
