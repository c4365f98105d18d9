"""The workers of a database: processes that own devices, on any host. Only PostgreSQL has any."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, Select, and_, cast, column, delete, func, select, table, update
from sqlalchemy.dialects.postgresql import OID

from demo_api.messages import DeviceHealth, PoolModel
from demo_api.queue.database import Database
from demo_api.queue.node import Node
from demo_api.queue.schema import workers

LOCK_CLASS = func.hashtext(func.concat("demo_api ", func.current_schema()))
"""The first key of the advisory locks that workers hold; the second is the worker's number."""

_pg_locks = table("pg_locks", *map(column, ("locktype", "classid", "objid", "objsubid", "database")))
_pg_database = table("pg_database", column("oid"), column("datname"))


@dataclass(frozen=True)
class Worker:
    """A process that owns the devices of a node.

    Attributes:
        number: unique in the database, and never given twice.
        node: the node's name.
        version: demo_api's.
        pool: the model that its runs are for, by its name.
        model: what a door must know of that model.
        devices: as ``/health`` shows them; their names are those on the node.
        since: when it began, in Unix seconds.
    """

    number: int
    node: str
    version: str
    pool: str
    model: PoolModel
    devices: Sequence[DeviceHealth]
    since: float


class Workers:
    """Who lives, and what it has."""

    def __init__(self, database: Database, node: Node) -> None:
        self._database = database
        self._node = node

    def add(self, version: str, model: PoolModel, devices: Sequence[DeviceHealth]) -> int:
        """Adds a worker of this node. It lives as soon as its session has the lock of its number, which is returned."""
        row = {
            "node": self._node.name,
            "version": version,
            "pool": str(model["model"]),
            "model": model,
            "devices": list(devices),
            "since": time.time(),
        }
        with self._database.write() as connection:
            return int(connection.execute(workers.insert().values(row).returning(workers.c.number)).scalar_one())

    def publish(self, number: int, devices: Sequence[DeviceHealth]) -> None:
        """Writes down how the worker's devices are now."""
        with self._database.write() as connection:
            connection.execute(update(workers).where(workers.c.number == number).values(devices=list(devices)))

    def remove(self, number: int) -> None:
        """The worker has ended in order."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.number == number))

    def live(self) -> list[Worker]:
        """Those whose session has its lock, by their numbers."""
        if not self._database.has_many_hosts:
            return []
        with self._database.read() as connection:
            found = connection.execute(
                select(workers).where(workers.c.number.in_(live_numbers())).order_by(workers.c.number)
            )
            return [Worker(**row) for row in found.mappings()]


def live_numbers() -> Select[Any]:
    """Selects the numbers of the workers whose sessions live. PostgreSQL only.

    Source: PostgreSQL's documentation of ``pg_locks``: an advisory lock with two keys has the first in ``classid``, the
    second in ``objid``, and 2 in ``objsubid``.
    """
    here = select(_pg_database.c.oid).where(_pg_database.c.datname == func.current_database()).scalar_subquery()
    locks = _pg_locks.c
    is_ours = and_(
        locks.locktype == "advisory",
        locks.classid == cast(LOCK_CLASS, OID),
        locks.objsubid == 2,
        locks.database == here,
    )
    return select(cast(locks.objid, Integer)).where(is_ours)
