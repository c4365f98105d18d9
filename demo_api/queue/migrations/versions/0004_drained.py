"""Adds to a device whether it takes runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Only adds: servers of the version before go on working with these tables."""
    op.add_column("devices", sa.Column("drained_at", sa.Float(53)))
