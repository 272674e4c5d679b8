"""What epic-runner remembers: tenants, wanted clusters, operations and their events.

One `Store` stands before the database; every other module speaks in the records below.
"""

from __future__ import annotations

from epic_runner.store.records import (
    ActionRecord,
    ClusterRecord,
    HostRecord,
    NodeOutcome,
    OperationRecord,
    TenantRecord,
)
from epic_runner.store.store import Store

__all__ = [
    "ActionRecord",
    "ClusterRecord",
    "HostRecord",
    "NodeOutcome",
    "OperationRecord",
    "Store",
    "TenantRecord",
]
