"""Several hosts: what they said of themselves, and addresses of tenants and nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("checked_at", sa.Float, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
    )
    op.add_column("tenants", sa.Column("subnet", sa.String(32)))
    op.add_column(
        "nodes", sa.Column("address", sa.String(45), nullable=False, server_default="")
    )
