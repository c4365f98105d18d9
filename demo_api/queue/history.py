"""Reads runs and their events, and removes old ones."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Select, delete, exists, func, select
from sqlalchemy.sql.elements import ColumnElement

from demo_api.demo.run_folder import JUST_ENDED_SECONDS, SECONDS_A_DAY
from demo_api.errors import BadRequest, NoSuchRun
from demo_api.messages import Event, Run
from demo_api.messages.health import Estimate
from demo_api.queue import rows
from demo_api.queue.database import Database
from demo_api.queue.estimate import MOST_RUNS, estimate
from demo_api.queue.schema import batches, events, output, runs

_SEARCHED_RUNS = 200
"""The latest runs among which those are looked for that were like one: however many are kept, it costs little."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is: all that somebody who waits must know.

    Attributes:
        position: in the queue; None if it is not waiting, or nobody asked.
    """

    status: str
    last_event: int
    position: int | None = None

    @property
    def ended(self) -> bool:
        """Whether its status is for good."""
        return self.status not in ("queued", "running")


class History:
    """All that only reads runs, and the removal of old ones."""

    def __init__(self, database: Database, *, keep_runs: int, keep_days: float) -> None:
        self._database = database
        self._keep_runs = keep_runs
        self._keep_days = keep_days

    def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            NoSuchRun: it is not there, or no longer.
        """
        with self._database.read() as connection:
            row = connection.execute(select(runs).where(rows.named(run_id))).mappings().first()
            if row is None:
                raise NoSuchRun(f"There is no run {run_id}.")
            waits = row["status"] == "queued"
            return rows.to_run(row, rows.position(connection, row) if waits else None)

    def page(self, *, statuses: Collection[str] = (), before: str | None = None, limit: int = 50) -> list[Run]:
        """Runs, the newest first.

        Args:
            statuses: only those; empty for all.
            before: a run's id; only older ones.

        Raises:
            BadRequest: there is no run ``before``.
        """
        wanted: list[ColumnElement[bool]] = [runs.c.status.in_(list(statuses))] if statuses else []
        with self._database.read() as connection:
            if before is not None:
                number = connection.execute(select(runs.c.number).where(rows.named(before))).scalar()
                if number is None:
                    raise BadRequest(
                        f"There is no run {before} to list older runs from.",
                        next_step="Start again without 'before'.",
                        field="before",
                    )
                wanted.append(runs.c.number < number)
            newest = select(runs).where(*wanted).order_by(runs.c.number.desc()).limit(limit)
            found = connection.execute(newest).mappings().all()
            waiting = rows.positions(connection, [row["number"] for row in found if row["status"] == "queued"])
            return [rows.to_run(row, waiting.get(row["number"])) for row in found]

    def events(self, run_id: str, after: int = 0) -> list[tuple[int, Event]]:
        """A run's events with their numbers, from the one after ``after``."""
        own = select(events).join(runs).where(rows.named(run_id), events.c.number > after)
        with self._database.read() as connection:
            found = connection.execute(own.order_by(events.c.number)).mappings()
            # Of a damaged event nothing can be shown, but that it is the last one.
            readable = [row for row in found if isinstance(row["data"], dict) or row["kind"] == "done"]
            return [
                (row["number"], Event(row["kind"], row["at"], {} if row["kind"] == "done" else row["data"]))
                for row in readable
            ]

    def progress(self, run_ids: Collection[str], followed: Collection[str] = ()) -> dict[str, RunProgress]:
        """How far these runs are; those that are not there are missing.

        Args:
            followed: those of them whose positions are wanted.
        """
        columns = select(runs.c.number, runs.c.run_id, runs.c.status, runs.c.last_event)
        with self._database.read() as connection:
            found = connection.execute(columns.where(runs.c.run_id.in_(run_ids))).all()
            waiting = [row.number for row in found if row.status == "queued" and row.run_id in followed]
            positions = rows.positions(connection, waiting)
            return {row.run_id: RunProgress(row.status, row.last_event, positions.get(row.number)) for row in found}

    def estimate(self, run: Run | None) -> Estimate | None:
        """How long a run usually takes from its start to its end; None if too few have succeeded.

        Args:
            run: counts only runs that differ from it in their prompts alone; None counts all of them.
        """
        seconds = (runs.c.time_seconds - runs.c.waited_seconds).label("seconds")
        succeeded = select(runs.c.number, runs.c.batch_key, seconds).where(runs.c.status == "succeeded")
        latest = succeeded.order_by(runs.c.number.desc()).limit(_SEARCHED_RUNS).subquery()
        known = select(latest.c.seconds).where(latest.c.seconds.is_not(None))
        if run is not None:
            known = known.where(latest.c.batch_key == rows.batch_key(run.request))
        with self._database.read() as connection:
            found = connection.execute(known.order_by(latest.c.number.desc()).limit(MOST_RUNS)).scalars()
            return estimate(list(found))

    def count_open(self) -> dict[tuple[str | None, str], int]:
        """How many runs there are of each pool that are ``queued`` or ``running``."""
        open_runs = select(runs.c.pool, runs.c.status, func.count()).where(runs.c.status.in_(["queued", "running"]))
        with self._database.read() as connection:
            counted = connection.execute(open_runs.group_by(runs.c.pool, runs.c.status)).all()
        return {(pool, status): number for pool, status, number in counted}

    def prune(self) -> None:
        """Removes the runs that ended too long ago, and the oldest of those that are too many, with their output."""
        now = time.time()
        ended = runs.c.finished_at < now - JUST_ENDED_SECONDS
        oldest_kept = select(runs.c.number).where(ended).order_by(runs.c.number.desc()).offset(self._keep_runs - 1)
        with self._database.read() as connection:
            number = connection.execute(oldest_kept.limit(1)).scalar() or 0
            old = ended & ((runs.c.number < number) | (runs.c.finished_at < now - self._keep_days * SECONDS_A_DAY))
            if connection.execute(select(runs.c.number).where(old).limit(1)).first() is None:
                return
            kept = select(runs.c.batch_id).where(runs.c.number.not_in(select(runs.c.number).where(old)))
            without_runs = connection.execute(select(batches.c.batch_id).where(_is_unused(kept), _HAS_OUTPUT))
            printed = without_runs.scalars().all()
        for batch_id in printed:  # one by one: what a flood has left takes long to remove
            with self._database.write() as connection:
                connection.execute(delete(output).where(output.c.batch_id == batch_id))
        with self._database.write() as connection:
            connection.execute(delete(runs).where(old))
            connection.execute(delete(batches).where(_is_unused(select(runs.c.batch_id)), ~_HAS_OUTPUT))


_HAS_OUTPUT = exists().where(output.c.batch_id == batches.c.batch_id)


def _is_unused(used: Select[tuple[str]]) -> ColumnElement[bool]:
    return (batches.c.state == "closed") & batches.c.batch_id.not_in(used.where(runs.c.batch_id.is_not(None)))
