#!/usr/bin/python
"""Ansible module: whether this host sees the storage that tenants have in common."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_storage
short_description: Mark the storage that hosts have in common, or look for its mark
description:
  - A folder that is to hold the storage of tenants gets a mark, by which other hosts know that
    they see the same one, and by which one whose file system is not mounted is told apart.
  - Exports of an NFS server are mounted by Docker and need none.
options:
  storage:
    description: A folder of this host, or C(nfs://SERVER/PATH); nothing is done where it is empty.
    type: str
    default: ""
  state:
    description:
      - C(seen) only looks. C(marked) marks a folder that holds no other files.
        C(unmarked) takes the mark away.
    type: str
    choices: [seen, marked, unmarked]
    default: seen
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Mark the folder
  epic_storage:
    storage: /srv/shared
    state: marked
"""

RETURN = r"""
storage:
  description: C(kind), C(place), C(error), and of a folder C(mark) and C(writable).
  type: dict
  returned: always
"""

import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils.epic_volumes import MARK, storage_facts

SERVER_SECONDS = 2.0

ARGUMENT_SPEC: dict[str, Any] = {
    "storage": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["seen", "marked", "unmarked"], "default": "seen"},
}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    facts = storage_facts(params["storage"], SERVER_SECONDS)
    is_folder = facts["kind"] == "folder" and not facts["error"]
    wanted = {"marked": True, "unmarked": False}.get(params["state"], bool(facts.get("mark")))
    changed = is_folder and wanted != bool(facts["mark"])
    result = {"changed": changed, "storage": facts}
    if not changed:
        return result
    mark = Path(params["storage"]) / MARK
    try:
        strange = others(mark.parent) if wanted else []
        if strange:
            msg = (
                f"{mark.parent} holds other files ({', '.join(strange[:3])}), among which a "
                "tenant's name could be: have epic_storage name an empty folder of its own."
            )
            return {**result, "changed": False, "failed": True, "msg": msg}
        if check_mode:
            return result
        if wanted:
            mark.write_text(f"{uuid.uuid4().hex}\n", encoding="utf-8")
        else:
            mark.unlink()
    except OSError as problem:
        return {**result, "changed": False, "failed": True, "msg": f"{mark}: {problem.strerror}"}
    return {**result, "storage": storage_facts(params["storage"], SERVER_SECONDS)}


def others(folder: Path) -> list[str]:
    """Return the files of a folder that are neither hidden nor the file system's own."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not name.startswith(".") and name != "lost+found"]


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
