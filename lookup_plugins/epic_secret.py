"""Ansible lookup plugin: the secret that a reference means."""

from __future__ import annotations

DOCUMENTATION = r"""
name: epic_secret
short_description: Read a secret from Vault or from a file of the controller
description:
  - A reference says where a secret is, so that inventories and variables never hold it.
  - C(file:PATH#KEY) is a key of a JSON file of the controller.
  - C(vault:MOUNT/PATH#KEY) is a key of a secret in a KV engine of version 2 of the Vault or OpenBao
    that the variables C(EPIC_VAULT_ADDR) and C(EPIC_VAULT_TOKEN_FILE), or
    C(EPIC_VAULT_ROLE_ID_FILE) and C(EPIC_VAULT_SECRET_ID_FILE), name. This needs the Python package
    epic-runner beside ansible-core.
options:
  _terms:
    description: References.
    required: true
"""

EXAMPLES = r"""
- name: Log in to the package mirror
  ansible.builtin.uri:
    url: https://mirror.example.com
    url_password: "{{ lookup('epic_secret', 'vault:secret/epic/analytics#mirror') }}"
  no_log: true
"""

RETURN = r"""
_list:
  description: The secrets.
  type: list
  elements: str
"""

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """Reads secrets."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any
    ) -> list[str]:
        """Return the secret of each reference."""
        self.set_options(var_options=variables, direct=options)
        return [_from_file(term) if term.startswith("file:") else _read(term) for term in terms]


def _from_file(reference: str) -> str:
    path, _, key = reference.removeprefix("file:").rpartition("#")
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))[key])
    except OSError as problem:
        raise AnsibleLookupError(f"{path}: {problem.strerror}.") from problem
    except (ValueError, KeyError, TypeError):
        # Without the cause, which may show what the file holds.
        raise AnsibleLookupError(f"{path} is no JSON with the key {key}.") from None


def _read(reference: str) -> str:
    try:
        from epic_runner.errors import EpicError
        from epic_runner.secrets import read_secret
    except ImportError as problem:
        raise AnsibleLookupError(
            f"The lookup epic_secret needs the Python package epic-runner beside Ansible: {problem}"
        ) from problem
    try:
        return read_secret(reference)
    except EpicError as problem:
        raise AnsibleLookupError(f"{problem.message} {problem.hint or ''}".strip()) from problem
