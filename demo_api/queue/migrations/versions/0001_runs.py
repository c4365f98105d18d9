"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes all tables."""
    runs = op.create_table(
        "runs",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.Text, nullable=False, unique=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("demo", sa.JSON, nullable=False),
        sa.Column("alike", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("idempotency_place", sa.Integer),
        sa.Column("accepted_at", sa.Float(53), nullable=False),
        sa.Column("accepted_clock", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("waited_seconds", sa.Float(53)),
        sa.Column("time_seconds", sa.Float(53)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("batch_id", sa.Text),
        sa.Column("told_position", sa.Integer),
        sa.Column("last_event", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.UniqueConstraint("idempotency_key", "idempotency_place", name="runs_idempotency"),
        sqlite_autoincrement=True,
    )
    op.create_index("runs_line", "runs", [runs.c.status, runs.c.number])
    op.create_index("runs_batch", "runs", [runs.c.batch_id])
    batches = op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("started_clock", sa.Float(53), nullable=False),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53)),
    )
    op.create_index("batches_state", "batches", [batches.c.state, batches.c.device])
    op.create_table(
        "events",
        sa.Column(
            "run_number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("runs.number", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53)),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("run_number", "number"),
    )
    op.create_table(
        "devices",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("since", sa.Float(53), nullable=False),
    )
    line = op.create_table("line", sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    op.bulk_insert(line, [{"id": 1}])
