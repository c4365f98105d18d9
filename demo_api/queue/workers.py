"""The workers of a database: processes that own devices, on any host. Only PostgreSQL has any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import RowMapping, case, delete, func, select, update

from demo_api.demo.run_folder import SECONDS_A_DAY
from demo_api.messages.health import DeviceHealth, PoolModel
from demo_api.queue.alive import living
from demo_api.queue.database import Database
from demo_api.queue.node import Node
from demo_api.queue.schema import workers


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
        seconds: for how long it has been there.
    """

    number: int
    node: str
    version: str
    pool: str
    model: PoolModel
    devices: Sequence[DeviceHealth]
    since: float
    seconds: float


class Workers:
    """Who lives, and what it has. Times are by PostgreSQL's clock."""

    def __init__(self, database: Database, node: Node) -> None:
        self.node = node.name
        """This node's name."""
        self._database = database

    def add(self, version: str, model: PoolModel, devices: Sequence[DeviceHealth], number: int | None = None) -> int:
        """Adds a worker of this node, and removes those that are gone from it, and from others for a day.

        Args:
            number: of a worker that comes back: it keeps that, unless it was removed meanwhile.

        Returns:
            its number. It lives as soon as a session has the lock of that number.
        """
        row = {
            "node": self.node,
            "version": version,
            "pool": str(model["model"]),
            "model": model,
            "devices": list(devices),
            "since": self._database.clock_now(),
        }
        comes_back = update(workers).where(workers.c.number == number).values(**row, gone_at=None)
        is_old = (workers.c.node == self.node) | (workers.c.gone_at < self._database.clock_now() - SECONDS_A_DAY)
        with self._database.write() as connection:
            if number is not None and connection.execute(comes_back).rowcount:
                return number
            connection.execute(delete(workers).where(is_old, workers.c.number.not_in(living())))
            return int(connection.execute(workers.insert().values(row).returning(workers.c.number)).scalar_one())

    def publish(self, number: int, devices: Sequence[DeviceHealth]) -> None:
        """Writes down how the worker's devices are now."""
        with self._database.write() as connection:
            connection.execute(update(workers).where(workers.c.number == number).values(devices=list(devices)))

    def note_gone(self, number: int | None = None) -> None:
        """Writes down that this worker has ended in order, or by default: which ones are found to be gone now."""
        gone = workers.c.number.not_in(living()) if number is None else workers.c.number == number
        unseen = select(workers.c.number).where(gone, workers.c.gone_at.is_(None))
        with self._database.read() as connection:
            found = connection.execute(unseen).scalars().all()
        if found:
            with self._database.write() as connection:
                gone_now = update(workers).where(workers.c.number.in_(found))
                connection.execute(gone_now.values(gone_at=self._database.clock_now()))

    def live(self) -> list[Worker]:
        """Those whose session has its lock, by their numbers."""
        return [worker for worker, gone_at in self.known() if gone_at is None]

    def known(self) -> list[tuple[Worker, float | None]]:
        """All that are remembered, by their numbers; those that are gone with when that was seen, in Unix seconds."""
        if not self._database.has_many_hosts:
            return []
        now = self._database.clock_now()
        gone = case((workers.c.number.in_(living()), None), else_=func.coalesce(workers.c.gone_at, now))
        seconds = (now - workers.c.since).label("seconds")
        wanted = select(workers, seconds, gone.label("gone")).order_by(workers.c.number)
        with self._database.read() as connection:
            return [(_worker(row), row["gone"]) for row in connection.execute(wanted).mappings()]


def _worker(row: RowMapping) -> Worker:
    return Worker(**{field.name: row[field.name] for field in fields(Worker)})
