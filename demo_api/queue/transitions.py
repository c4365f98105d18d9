"""What happens to one run: queued, started, queued again, ended; each with its event, in the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, update

from demo_api.messages import Event, Request, Result, Run
from demo_api.queue import rows
from demo_api.queue.schema import runs


def insert(
    connection: Connection,
    request: Request,
    at: float,
    clock: float,
    idempotency: tuple[str | None, int],
    position: int,
    pool: str | None,
) -> Run:
    """Queues a new run.

    Args:
        at: Unix seconds.
        clock: ``Database.clock`` seconds.
        idempotency: the request's key, and the run's index among those that were submitted with it.
        position: in the queue of its pool.
        pool: the model that is to answer; None: any.
    """
    key, index = idempotency
    values = {
        "run_id": rows.new_id(),
        "status": "queued",
        "request": request.model_dump(),
        "batch_key": rows.batch_key(request),
        "idempotency_key": key,
        "idempotency_place": None if key is None else index,
        "accepted_at": at,
        "accepted_clock": clock,
        "last_event": 1,
        "pool": pool,
    }
    row = connection.execute(runs.insert().values(values).returning(*runs.c)).mappings().one()
    rows.insert_events(connection, [(row["number"], 1, Event("queued", at, {"position": position}))])
    return rows.to_run(row, position)


def start(
    connection: Connection, row: RowMapping, batch_id: str, device: str, *, at: float, clock: float, batch_size: int
) -> Run:
    """Gives a waiting run to a batch."""
    attempt = row["attempts"] + 1
    values = {
        "status": "running",
        "started_at": at,
        "waited_seconds": rows.elapsed(row, at, clock),
        "attempts": attempt,
        "batch_id": batch_id,
    }
    data = {"attempt": attempt, "batch_size": batch_size, "device": device}
    return rows.to_run(_change(connection, row, values, Event("started", at, data)))


def requeue(connection: Connection, row: RowMapping, at: float, *, attempts: int) -> None:
    """Puts a run that was started back into the queue, where it was."""
    position = rows.position(connection, row) + 1
    values = {"status": "queued", "attempts": attempts, "started_at": None, "waited_seconds": None}
    _change(connection, row, values, Event("queued", at, {"position": position, "again": True}))


def end(connection: Connection, row: RowMapping, result: Result, at: float, clock: float) -> Run:
    """Gives a run its terminal value and its last event. Returns it as it is then."""
    values = {
        "status": _status(result),
        "finished_at": at,
        "time_seconds": rows.elapsed(row, at, clock),
        "result": rows.from_result(result),
    }
    return rows.to_run(_change(connection, row, values, Event("done", at)))


def _change(connection: Connection, row: RowMapping, values: dict[str, Any], event: Event) -> RowMapping:
    """Gives a run new values, and its event of that. Returns it as it is then."""
    changed = update(runs).where(runs.c.number == row["number"]).values(last_event=runs.c.last_event + 1, **values)
    fresh = connection.execute(changed.returning(*runs.c)).mappings().one()
    rows.insert_events(connection, [(row["number"], fresh["last_event"], event)])
    return fresh


def _status(result: Result) -> str:
    if result.failure is None:
        return "succeeded"
    return result.failure.code if result.failure.code in ("cancelled", "timed_out") else "failed"
