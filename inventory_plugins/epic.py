"""Ansible inventory plugin: the clusters and nodes that live now, for ad-hoc plays and AWX."""

from __future__ import annotations

DOCUMENTATION = r"""
name: epic
short_description: Clusters and nodes of epic-runner as an inventory
description:
  - Each cluster is a group, each of its node roles a group below it, each tenant a group of its
    clusters; the Docker hosts are the group C(docker_hosts). Only running nodes are listed.
  - A group whose name is taken, such as C(all) or that of a cluster called like another one's node
    role, has an underscore behind it.
  - Where two tenants have a cluster of the same name, groups and nodes of both carry the tenant's
    name in front.
  - Needs epic-runner installed beside ansible-core.
options:
  plugin:
    description: Names this plugin.
    required: true
    choices: [epic]
  tenant:
    description: Only clusters of this tenant.
    type: str
  home:
    description: The folder of epic-runner's state.
    type: path
    env:
      - name: EPIC_HOME
"""

EXAMPLES = r"""
# epic.yml
plugin: epic
"""

import os
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """Reads the store and the containers' labels."""

    NAME = "epic"

    def verify_file(self, path: str) -> bool:
        """Tell whether a file is this plugin's: `epic.yml`, or one whose name ends in it."""
        return super().verify_file(path) and path.endswith(("epic.yml", "epic.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:  # noqa: FBT001, FBT002 - Ansible's own signature
        """Fill Ansible's inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if self.get_option("home"):
            os.environ["EPIC_HOME"] = self.get_option("home")
        try:
            from epic_runner.errors import EpicError
            from epic_runner.live import live_inventory
        except ImportError as problem:
            raise AnsibleParserError(
                "The inventory plugin epic needs the Python package epic-runner beside Ansible: "
                f"{problem}"
            ) from problem
        try:
            found = live_inventory(self.get_option("tenant"))
        except EpicError as problem:
            raise AnsibleParserError(str(problem)) from problem
        for group, members in found.groups.items():
            self.inventory.add_group(group)
            for child in members.groups:
                self.inventory.add_group(child)
                self.inventory.add_child(group, child)
            for host in members.hosts:
                self.inventory.add_host(host, group)
        for host, variables in found.variables.items():
            for key, value in variables.items():
                self.inventory.set_variable(host, key, value)
