"""Actions: who asked for them, who may be another one than as whom they run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column(
        "actions", sa.Column("asked_by", sa.String(255), nullable=False, server_default="")
    )
