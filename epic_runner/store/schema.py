"""The tables of the store. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
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
HEAD = "0003"

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
)
