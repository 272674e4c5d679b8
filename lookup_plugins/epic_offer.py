"""Ansible lookup plugin: what a role of an app offers for each node role of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: epic_offer
short_description: Render what a role offers for the nodes of a cluster
description:
  - A role C(NAME) that offers services holds them in the variable C(__NAME_offers), by service
    (C(common) goes to every node role). This lookup renders the ones of each node role of
    C(NAME_node_roles), with the node role in hand as C(__NAME_node_role).
  - A file of an offer has C(content), or names a C(template) of the role, which C(vars) of the
    file's own may be for.
  - It replaces a loop of C(set_fact), whose every turn costs a process.
options:
  _terms:
    description: The names of roles.
    required: true
  parts:
    description: Only these keys of the offers; a file's template is the costly one to render.
    type: list
    elements: str
"""

EXAMPLES = r"""
node_offers: "{{ query('epic_offer', 'spark', 'jupyter') }}"
node_commands: "{{ query('epic_offer', 'spark', 'jupyter', parts=['ready', 'leave', 'logs']) }}"
"""

RETURN = r"""
_list:
  description: For each role, by node role, its offer of files, secrets, dirs, ready, leave, logs.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template


class LookupModule(LookupBase):  # type: ignore[misc]
    """Renders offers."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the offers of each role of `terms`."""
        self.set_options(var_options=variables, direct=options)
        parts = self.get_option("parts")
        return [self._offers(role, variables or {}, parts) for role in terms]

    def _offers(
        self, role: str, variables: dict[str, Any], parts: list[str] | None
    ) -> dict[str, Any]:
        wanted = f"__{role}_offers"
        if wanted not in variables:
            raise AnsibleLookupError(f"The role {role} is not in the play, or offers nothing.")
        node_roles = self._templar.template(variables[f"{role}_node_roles"])
        return {
            name: self._offer(role, variables, node_role, parts)
            for name, node_role in node_roles.items()
        }

    def _offer(
        self,
        role: str,
        variables: dict[str, Any],
        node_role: Mapping[str, Any],
        parts: list[str] | None,
    ) -> dict[str, Any]:
        templar = self._templar.copy_with_new_env(
            available_variables={**variables, f"__{role}_node_role": node_role}
        )
        offers = variables[f"__{role}_offers"]
        merged: dict[str, Any] = {}
        for service in ("common", *node_role["services"]):
            offer = offers.get(service, {})
            if isinstance(offer, str):
                offer = templar.template(offer)
            offer = templar.template(
                {key: value for key, value in offer.items() if parts is None or key in parts}
            )
            for key, value in offer.items():
                if isinstance(value, dict):
                    merged.setdefault(key, {}).update(value)
                else:
                    merged.setdefault(key, []).extend(value)
        for file in merged.get("files", {}).values():
            if "template" in file:
                text = (_templates(role, variables) / file.pop("template")).read_text("utf-8")
                own = file.pop("vars", {})
                if own:
                    file["content"] = templar.copy_with_new_env(
                        available_variables={**templar.available_variables, **own}
                    ).template(trust_as_template(text))
                else:
                    file["content"] = templar.template(trust_as_template(text))
        return merged


def _templates(role: str, variables: Mapping[str, Any]) -> Path:
    beside = Path(str(variables.get("playbook_dir", "."))) / "roles"
    for folder in [beside, *map(Path, constants.DEFAULT_ROLES_PATH)]:
        if (folder / role).is_dir():
            return folder / role / "templates"
    raise AnsibleLookupError(f"There is no role {role} in Ansible's path of roles.")
