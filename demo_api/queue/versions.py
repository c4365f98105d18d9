"""The version of the tables: which ones this demo_api can use, and how older ones are upgraded."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select, text

from demo_api.queue import schema
from demo_api.queue.alive import living

_WITH_WORKERS = "0003"
"""The first version that knows who lives."""


def version(connection: Connection) -> str | None:
    """The version of the tables that are there; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def suits(found: str | None) -> bool:
    """Whether this demo_api can use such tables: its own, and the next, because a migration only adds to them."""
    return found is not None and found in (schema.VERSION, f"{int(schema.VERSION) + 1:04}")


def is_older(found: str) -> bool:
    """Whether these tables can be upgraded."""
    return found in [f"{number:04}" for number in range(1, int(schema.VERSION))]


def workers_of(connection: Connection, found: str) -> list[str]:
    """The workers that use these tables of PostgreSQL now, for people: their nodes and versions."""
    if found < _WITH_WORKERS:
        return []
    known = select(schema.workers.c.node, schema.workers.c.version).where(schema.workers.c.number.in_(living()))
    return [f"{node} ({release})" for node, release in connection.execute(known.order_by(schema.workers.c.node))]


def upgrade(connection: Connection) -> None:
    """Upgrades older tables, in this transaction."""
    from alembic import command  # here, because it takes long to import and is seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "demo_api.queue:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
