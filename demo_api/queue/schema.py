"""The tables. A change here needs a migration beside the others in ``migrations/versions``; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = "0004"
"""The newest migration."""

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    # The order of arrival. SQLite gives a number of its own to INTEGER only.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("demo", JSON, nullable=False, default=dict),  # of earlier versions: paths; nothing reads it
    Column("batch_key", Text, nullable=False),  # equal for runs that one child can take together
    Column("idempotency_key", Text),
    Column("idempotency_place", Integer),
    Column("accepted_at", Float(53), nullable=False),  # Unix seconds, for people
    Column("accepted_clock", Float(53), nullable=False),  # Database.clock, for durations
    Column("started_at", Float(53)),
    Column("finished_at", Float(53)),
    Column("waited_seconds", Float(53)),
    Column("time_seconds", Float(53)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("batch_id", Text),
    Column("announced_position", Integer),  # of earlier versions; nothing reads it
    Column("last_event", Integer, nullable=False, default=0),
    Column("result", JSON(none_as_null=True)),
    Column("pool", Text),  # the model that is to answer, where a queue has several; null: any
    UniqueConstraint("idempotency_key", "idempotency_place", name="runs_idempotency"),
    Index("runs_queue", "status", "number"),
    Index("runs_batch", "batch_id"),
    sqlite_autoincrement=True,  # a number is never given twice, not even that of a run that was removed
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("started_clock", Float(53), nullable=False),
    Column("lease_until", Float(53), nullable=False),  # Database.clock
    Column("state", Text, nullable=False),  # open; lost, until what it left on the device is ended; closed
    Column("seconds", Float(53)),  # null where it was not finished
    Column("worker", Integer),  # whose it is; null without workers
    Index("batches_state", "state", "device"),
)

events = Table(
    "events",
    metadata,
    Column("run_number", ForeignKey("runs.number", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Float(53)),
    Column("data", JSON, nullable=False),
    PrimaryKeyConstraint("run_number", "number"),
)

devices = Table(
    "devices",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("since", Float(53), nullable=False),
    Column("drained_at", Float(53)),  # since when it takes no runs, Unix seconds; null: it does
)

# What a batch's child has printed, in pieces; only where servers do not share their files.
output = Table(
    "output",
    metadata,
    Column("batch_id", Text, nullable=False),
    Column("stream", Text, nullable=False),  # stdout or stderr
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("batch_id", "stream", "number"),
)

# Processes that own devices and have said so. One lives while its session has a lock: see session.py.
workers = Table(
    "workers",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("node", Text, nullable=False),
    Column("version", Text, nullable=False),  # demo_api's
    Column("pool", Text, nullable=False),
    Column("model", JSON, nullable=False),  # what a door must know of it
    Column("devices", JSON, nullable=False),  # as /health shows them
    Column("since", Float(53), nullable=False),  # Unix seconds; so is gone_at
    Column("gone_at", Float(53)),  # when it was seen that it had ended or was lost
    sqlite_autoincrement=True,
)

# One row. Earlier versions locked it; now it shows whether the ledger can be written.
queue_lock = Table("queue_lock", metadata, Column("id", Integer, primary_key=True, autoincrement=False))

_versions = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own. It compares the other metadata with what is there, where it does not count its own."""


def create(connection: Connection) -> None:
    """Makes all tables in an empty database, at once and without importing Alembic, as the migrations would."""
    for tables in (metadata, _versions.metadata):
        tables.create_all(connection, checkfirst=False)
    connection.execute(queue_lock.insert().values(id=1))
    connection.execute(_versions.insert().values(version_num=VERSION))
