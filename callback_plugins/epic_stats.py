"""Ansible callback plugin: writes what a play has made of each host into a file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: epic_stats
type: aggregate
short_description: Write the recap of a play as JSON
description:
  - At the end of a run, writes a mapping of host names to their counts (C(ok), C(changed),
    C(failures), C(unreachable), C(skipped)) into the file that the variable C(EPIC_STATS_FILE) of
    the environment names. Without that variable it does nothing.
"""

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Ansible's entry to this file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "epic_stats"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the counts of all hosts that a task was run on."""
        path = os.environ.get("EPIC_STATS_FILE")
        if path:
            counts = {host: stats.summarize(host) for host in stats.processed}
            Path(path).write_text(json.dumps(counts), encoding="utf-8")
