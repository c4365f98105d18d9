"""Adds what several hosts need: the workers, the pool of a run, and the output of a batch that any door can show."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Only adds: servers of the version before go on working with these tables."""
    op.create_table(
        "workers",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("model", sa.JSON, nullable=False),
        sa.Column("devices", sa.JSON, nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.Column("gone_at", sa.Float(53)),
        sqlite_autoincrement=True,
    )
    op.add_column("runs", sa.Column("pool", sa.Text))
    op.add_column("batches", sa.Column("worker", sa.Integer))
    op.create_table(
        "output",
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "stream", "number"),
    )
