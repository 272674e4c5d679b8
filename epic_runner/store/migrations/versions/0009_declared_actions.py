"""Actions that templates declare: their scripts, and in which container each node got one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column(
        "actions", sa.Column("declared", sa.String(64), nullable=False, server_default="")
    )
    op.add_column("actions", sa.Column("containers", sa.JSON))
    op.create_table(
        "declared_actions",
        sa.Column(
            "cluster_id",
            sa.Integer,
            sa.ForeignKey("clusters.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("script", sa.LargeBinary, nullable=False),
        sa.Column("done_at", sa.Float),
    )
