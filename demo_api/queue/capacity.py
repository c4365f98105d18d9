"""How many runs may wait, and when a refused client should try again."""

from __future__ import annotations

import math
import statistics
import time

from sqlalchemy import Connection, func, select

from demo_api.errors import QueueFull
from demo_api.queue.database import Database
from demo_api.queue.schema import batches, runs

_REMEMBERED_BATCHES = 20
_REFUSAL_SECONDS = 0.1
"""For so long a full queue is taken for full without a look at it, unless this process makes room."""


def count(connection: Connection, status: str) -> int:
    """How many runs have this status."""
    counted = select(func.count()).select_from(runs).where(runs.c.status == status)
    return int(connection.execute(counted).scalar_one())


class Capacity:
    """The bound of the queue."""

    def __init__(self, database: Database, *, max_queue: int, max_batch: int) -> None:
        self._database = database
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._full: tuple[float, QueueFull] | None = None  # until when, and what was said

    def check_latest(self) -> None:
        """Raises QueueFull if it was raised a moment ago: of a crowd, most are refused without the database."""
        until, error = self._full or (0.0, None)
        if error is not None and time.monotonic() < until:
            raise QueueFull(str(error), retry_after=error.fields["retry_after"])

    def made_room(self) -> None:
        """A run has left the queue."""
        self._full = None

    def check(self, connection: Connection, wanted: int) -> int:
        """How many runs wait. Raises QueueFull unless so many more may."""
        waiting = count(connection, "queued")
        if waiting + wanted > self._max_queue:
            sentence = f"{waiting} runs are waiting, and {self._max_queue} may."
            error = QueueFull(sentence, retry_after=self._retry_after(connection))
            if waiting >= self._max_queue:  # for a single run too
                self._full = time.monotonic() + _REFUSAL_SECONDS, error
            raise error
        return waiting

    def _retry_after(self, connection: Connection) -> int:
        """Whole seconds until the runs that wait now have been given to children.

        The median of the measured batches, for each batch ahead of the last one that waits, and what is left of
        the one that runs. Before any has ended, only the time that the running one has taken so far is known.
        """
        # By their runs' numbers: the host's clock may have begun anew.
        measured = select(batches.c.seconds).where(batches.c.seconds.is_not(None))
        ended = measured.join(runs, runs.c.batch_id == batches.c.batch_id).group_by(batches.c.batch_id)
        latest = ended.order_by(func.max(runs.c.number).desc()).limit(_REMEMBERED_BATCHES)
        seconds: list[float] = list(connection.execute(latest).scalars())
        began = connection.execute(select(func.min(batches.c.started_clock)).where(batches.c.state == "open")).scalar()
        elapsed: float = max(0.0, self._database.clock(connection) - began) if began is not None else 0.0
        if not seconds:
            return max(1, math.ceil(elapsed))
        median = statistics.median(seconds)
        rest = max(0.0, median - elapsed) if began is not None else 0.0
        return max(1, math.ceil(rest + median * max(0, self._batches_waiting(connection) - 1)))

    def _batches_waiting(self, connection: Connection) -> int:
        batch_key = select(func.count()).where(runs.c.status == "queued").group_by(runs.c.batch_key)
        counts: list[int] = list(connection.execute(batch_key).scalars())
        return sum(math.ceil(each / self._max_batch) for each in counts)
