"""Ansible's own content as modules of Python: each file is loaded once a process."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
UTILITY = "ansible.module_utils.epic_docker"


@cache
def load(name: str, path: str) -> ModuleType:
    """Import the file at `path` under the name by which others of the content import it."""
    found = importlib.util.spec_from_file_location(name, ROOT / path)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


# The modules import them by their names, so they are there before any of them.
utility = load(UTILITY, "module_utils/epic_docker.py")
disk = load("ansible.module_utils.epic_disk", "module_utils/epic_disk.py")
overlay = load("ansible.module_utils.epic_overlay", "module_utils/epic_overlay.py")
volumes = load("ansible.module_utils.epic_volumes", "module_utils/epic_volumes.py")
firewall = load("ansible.module_utils.epic_egress", "module_utils/epic_egress.py")
