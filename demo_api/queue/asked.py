"""What devices ask again and again. Each statement is built once: that takes longer than PostgreSQL's answer."""

from __future__ import annotations

from functools import cache

from sqlalchemy import ColumnElement, Executable, exists, func, select, true

from demo_api.queue.schema import batches, devices, runs


@cache
def work(names: tuple[str, ...], pool: str | None) -> Executable:
    """Whether the device may take a run of the pool that waits, and whether it has a batch that is open or lost.

    Args:
        names: all that the device may have in the database, its own first.
    """
    waits = exists().where(runs.c.status == "queued", is_for(pool), _takes_runs(names))
    left = exists().where(batches.c.state.in_(["open", "lost"]), batches.c.device.in_(names))
    return select(waits, left)


@cache
def oldest(names: tuple[str, ...], pool: str | None) -> Executable:
    """Takes the oldest run that waits in the pool; none if the device is drained or has failed."""
    waiting = select(runs).where(runs.c.status == "queued", is_for(pool), _takes_runs(names))
    return waiting.order_by(runs.c.number).limit(1).with_for_update(skip_locked=True)


def is_for(pool: str | None) -> ColumnElement[bool]:
    """Selects the runs that a worker of this pool may take."""
    return runs.c.pool.is_(None) if pool is None else runs.c.pool.is_(None) | (runs.c.pool == pool)


def _takes_runs(names: tuple[str, ...]) -> ColumnElement[bool]:
    """Selects whether the device is neither drained nor failed; it is free where nothing is known of it."""
    takes = devices.c.drained_at.is_(None) & (devices.c.state != "failed")
    known = select(takes).where(devices.c.name.in_(names)).order_by((devices.c.name == names[0]).desc()).limit(1)
    return func.coalesce(known.scalar_subquery(), true())
