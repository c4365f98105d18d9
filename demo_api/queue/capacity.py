"""How many runs may wait, and when a refused client should try again."""

from __future__ import annotations

import math
import statistics
import time

from sqlalchemy import ColumnElement, Connection, func, select

from demo_api.errors import QueueFull
from demo_api.queue.alive import living
from demo_api.queue.database import Database
from demo_api.queue.schema import batches, runs, workers

_REMEMBERED_BATCHES = 20
_REFUSAL_SECONDS = 0.1
"""For so long a full queue is taken for full without a look at it, unless this process makes room."""


def count(connection: Connection, status: str) -> int:
    """How many runs have this status."""
    return _count(connection, runs.c.status == status)


class Capacity:
    """The bound of each pool's queue.

    Args:
        devices: how many this server has.
    """

    def __init__(self, database: Database, *, max_queue: int, max_batch: int, devices: int = 1) -> None:
        self._database = database
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._devices = devices
        self._full: dict[str | None, tuple[float, QueueFull]] = {}  # by pool: until when, and what was said

    def check_latest(self, pool: str | None) -> None:
        """Raises QueueFull if it was raised a moment ago: of a crowd, most are refused without the database."""
        until, error = self._full.get(pool, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise QueueFull(str(error), retry_after=error.fields["retry_after"])

    def made_room(self) -> None:
        """A run has left the queue."""
        self._full = {}

    def check(self, connection: Connection, wanted: int, pool: str | None) -> int:
        """How many runs wait in the pool. Raises QueueFull unless so many more may."""
        waiting = _count(connection, _waits_in(pool))
        if waiting + wanted > self._max_queue:
            sentence = f"{waiting} runs are waiting{f' for {pool}' if pool else ''}, and {self._max_queue} may."
            error = QueueFull(sentence, retry_after=self._retry_after(connection, pool))
            if waiting >= self._max_queue:  # for a single run too
                self._full = {**self._full, pool: (time.monotonic() + _REFUSAL_SECONDS, error)}
            raise error
        return waiting

    def _retry_after(self, connection: Connection, pool: str | None) -> int:
        """Whole seconds until the runs that wait now have been given to children.

        The median of the measured batches, for each turn of all devices ahead of the last run that waits, and what is
        left of the batch that runs. Before any has ended, only the time that the running one has taken so far is known.
        """
        in_pool = runs.c.pool.is_not_distinct_from(pool)
        # By their runs' numbers: the host's clock may have begun anew.
        measured = select(batches.c.seconds).where(batches.c.seconds.is_not(None), in_pool)
        ended = measured.join(runs, runs.c.batch_id == batches.c.batch_id).group_by(batches.c.batch_id)
        latest = ended.order_by(func.max(runs.c.number).desc()).limit(_REMEMBERED_BATCHES)
        seconds: list[float] = list(connection.execute(latest).scalars())
        running = select(func.min(batches.c.started_clock)).join(runs, runs.c.batch_id == batches.c.batch_id)
        began = connection.execute(running.where(batches.c.state == "open", in_pool)).scalar()
        elapsed: float = max(0.0, self._database.clock(connection) - began) if began is not None else 0.0
        if not seconds:
            return max(1, math.ceil(elapsed))
        median = statistics.median(seconds)
        rest = max(0.0, median - elapsed) if began is not None else 0.0
        turns = math.ceil(self._batches_waiting(connection, pool) / self._count_devices(connection, pool))
        return max(1, math.ceil(rest + median * max(0, turns - 1)))

    def _batches_waiting(self, connection: Connection, pool: str | None) -> int:
        batch_key = select(func.count()).where(_waits_in(pool)).group_by(runs.c.batch_key)
        counts: list[int] = list(connection.execute(batch_key).scalars())
        return sum(math.ceil(each / self._max_batch) for each in counts)

    def _count_devices(self, connection: Connection, pool: str | None) -> int:
        if pool is None:
            return max(1, self._devices)
        # Servers that share a node share its devices.
        most = func.max(func.json_array_length(workers.c.devices)).label("devices")
        there = select(most).where(workers.c.pool == pool, workers.c.number.in_(living())).group_by(workers.c.node)
        return max(1, connection.execute(select(func.sum(there.subquery().c.devices))).scalar() or 0)


def _waits_in(pool: str | None) -> ColumnElement[bool]:
    return (runs.c.status == "queued") & runs.c.pool.is_not_distinct_from(pool)


def _count(connection: Connection, wanted: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(runs).where(wanted)).scalar_one())
