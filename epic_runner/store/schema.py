"""The tables of the store. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# The newest migration: compared at every start, so that Alembic (0.4 s to import) is only loaded
# when there is something to migrate. A test holds it to the newest file in `migrations/versions`.
HEAD = "0010"

# Times are seconds since the epoch, by the controller's clock.

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    # The tenant's part of the site's addresses, once one of its clusters needs it.
    Column("subnet", String(32)),
)

# A member's numeric user id is the same on every node of the tenant, for files in the tenant's
# storage, and is never given to another member, even after the first has left.
users = Table(
    "users",
    metadata,
    Column("tenant", String(32), ForeignKey("tenants.name", ondelete="CASCADE"), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("uid", Integer, nullable=False),
    UniqueConstraint("tenant", "uid"),
)

flavors = Table(
    "flavors",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("document", JSON, nullable=False),
)

clusters = Table(
    "clusters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(32), nullable=False),
    Column("name", String(32), nullable=False),
    Column("owner", String(32), nullable=False),
    Column("wanted", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("tenant", "name"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("cluster_id", Integer, ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True),
    Column("role", String(32), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("host", String(255), nullable=False),
    Column("ports", JSON, nullable=False),
    Column("wanted", String(16), nullable=False),
    Column("address", String(45), nullable=False, server_default=""),
)

# What hosts said of themselves when they were last looked at, and what people decided of them.
# Which hosts there are, only the inventory tells.
hosts = Table(
    "hosts",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("facts", JSON, nullable=False),
    Column("checked_at", Float, nullable=False),
    Column("draining", Boolean, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(32), nullable=False, index=True),
    Column("cluster", String(32), nullable=False, index=True),
    Column("verb", String(32), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("user", String(64), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("phase", String(64), nullable=False),
    Column("error", Text, nullable=False),
    Column("controller", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("ended_at", Float),
)

events = Table(
    "operation_events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column(
        "operation",
        String(32),
        ForeignKey("operations.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("at", Float, nullable=False),
    Column("phase", String(64), nullable=False),
    Column("node", String(64), nullable=False),
    Column("message", Text, nullable=False),
)

# Scripts that were run on nodes. What each node made of one is in `nodes`, by its short name; what
# it printed is on the node itself.
actions = Table(
    "actions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(32), nullable=False, index=True),
    Column("cluster", String(32), nullable=False, index=True),
    Column("user", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("script", LargeBinary, nullable=False),
    Column("options", JSON, nullable=False),
    Column("nodes", JSON, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("controller", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    # What tells an action that a template declares from its others; empty for people's own.
    Column("declared", String(64), nullable=False, server_default=""),
    # Of a declared one: the id of the container in which each node got it, by its short name.
    Column("containers", JSON),
    Column("asked_by", String(255), nullable=False, server_default=""),
)

# The scripts that templates of clusters declare, and since when all nodes have had each.
declared_actions = Table(
    "declared_actions",
    metadata,
    Column("cluster_id", Integer, ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("script", LargeBinary, nullable=False),
    Column("done_at", Float),
)

# What was seen of a cluster when somebody last looked whether it is used, and what was said of its
# end. A row of its own, since it is written every minute and a cluster is not.
lifetimes = Table(
    "lifetimes",
    metadata,
    Column("cluster_id", Integer, ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True),
    Column("active_at", Float, nullable=False),
    Column("activity", String(255), nullable=False),
    Column("looked_at", Float, nullable=False),
    Column("warned_at", Float),
    Column("extended_until", Float),
)

# Jobs that are run by the clock. `settings` says when and by what policy (`records.Timing`),
# `documents` holds the job and what it needs as it was written, since its files may vanish.
schedules = Table(
    "schedules",
    metadata,
    Column("tenant", String(32), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("user", String(64), nullable=False),
    Column("settings", JSON, nullable=False),
    Column("documents", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    # When it is due next; none while it is paused.
    Column("next_at", Float),
    Column("created_at", Float, nullable=False),
)

# The programs that scheduled jobs bring along.
schedule_files = Table(
    "schedule_files",
    metadata,
    Column("tenant", String(32), primary_key=True),
    Column("schedule", String(32), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# What came of each time that a schedule was due, runs that never began among them.
schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(32), nullable=False),
    Column("schedule", String(32), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("planned_at", Float, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("rc", Integer),
    Column("reason", Text, nullable=False),
    Column("log", Text, nullable=False),
    Column("controller", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(32), nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Index("ix_schedule_runs_of", "tenant", "schedule"),
)

# Programs that were submitted to clusters. What they printed is on their nodes, or under EPIC_HOME
# where their cluster was made for them.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(32), nullable=False, index=True),
    Column("cluster", String(32), nullable=False, index=True),
    Column("node", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("user", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("file", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("rc", Integer),
    Column("reason", Text, nullable=False),
    Column("cut", JSON, nullable=False),
    Column("applications", JSON, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("is_transient", Boolean, nullable=False),
    Column("is_settled", Boolean, nullable=False, index=True),
    Column("controller", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
)
