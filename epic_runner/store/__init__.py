"""What epic-runner remembers: tenants, wanted clusters, operations, actions, jobs.

One `Store` stands before the database; every other module speaks in the records below.
"""

from __future__ import annotations

from epic_runner.store.records import (
    ActionRecord,
    ClusterRecord,
    DeclaredHistory,
    DeclaredRun,
    HostRecord,
    JobRecord,
    NodeOutcome,
    OperationRecord,
    RunRecord,
    ScheduleRecord,
    TenantRecord,
    Timing,
    UseRecord,
)
from epic_runner.store.store import Store

__all__ = [
    "ActionRecord",
    "ClusterRecord",
    "DeclaredHistory",
    "DeclaredRun",
    "HostRecord",
    "JobRecord",
    "NodeOutcome",
    "OperationRecord",
    "RunRecord",
    "ScheduleRecord",
    "Store",
    "TenantRecord",
    "Timing",
    "UseRecord",
]
