"""What happens to one run: queued, started, queued again, ended; each with its event, in the caller's transaction."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, update

from demo_api.messages import Event, Request, Result, Run
from demo_api.queue import rows
from demo_api.queue.schema import events, runs


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
    first = {"run_number": row["number"], "number": 1, "kind": "queued", "at": at, "data": {"position": position}}
    connection.execute(events.insert(), first)
    return rows.to_run(row, position)


def start(
    connection: Connection, row: RowMapping, batch_id: str, device: str, *, at: float, clock: float, batch_size: int
) -> Run:
    """Gives a waiting run to a batch."""
    attempt = row["attempts"] + 1
    started = (
        update(runs)
        .where(runs.c.number == row["number"])
        .values(
            status="running",
            started_at=at,
            waited_seconds=rows.elapsed(row, at, clock),
            attempts=attempt,
            batch_id=batch_id,
        )
    )
    data = {"attempt": attempt, "batch_size": batch_size, "device": device}
    rows.add_events(connection, [(row["number"], Event("started", at, data))])
    return rows.to_run(connection.execute(started.returning(*runs.c)).mappings().one())


def requeue(connection: Connection, row: RowMapping, at: float, *, attempts: int) -> None:
    """Puts a run that was started back into the queue, where it was."""
    position = rows.position(connection, row) + 1
    back = (
        update(runs)
        .where(runs.c.number == row["number"])
        .values(status="queued", attempts=attempts, started_at=None, waited_seconds=None)
    )
    connection.execute(back)
    rows.add_events(connection, [(row["number"], Event("queued", at, {"position": position, "again": True}))])


def end(connection: Connection, row: RowMapping, result: Result, at: float, clock: float) -> Run:
    """Gives a run its terminal value and its last event. Returns it as it is then."""
    seconds = rows.elapsed(row, at, clock)
    ended = (
        update(runs)
        .where(runs.c.number == row["number"])
        .values(
            status=_status(result),
            finished_at=at,
            time_seconds=seconds,
            result=rows.from_result(result),
        )
    )
    fresh = connection.execute(ended.returning(*runs.c)).mappings().one()
    run = rows.to_run(fresh)
    rows.add_events(connection, [(row["number"], Event("done", at))])
    return run


def _status(result: Result) -> str:
    if result.failure is None:
        return "succeeded"
    return result.failure.code if result.failure.code in ("cancelled", "timed_out") else "failed"
