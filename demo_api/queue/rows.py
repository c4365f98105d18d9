"""Turns rows into runs and events, and back."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Connection, RowMapping, false, func, select, update

from demo_api.messages import Event, Failure, Request, Result, Run
from demo_api.queue.schema import events, runs

DAMAGED = "damaged"
"""The failure of a run whose row cannot be read."""

_RESULT = TypeAdapter(Result)
_WITH_RESULT = ("succeeded", "failed", "timed_out")  # as a run has that was cancelled, unless it still waited


def new_id() -> str:
    """Of a run or a batch: sorts by time, and is a safe name of a folder."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(4)


def named(run_id: str) -> ColumnElement[bool]:
    """Selects the run with this id. PostgreSQL's texts cannot even be asked for a NUL, and no id has one."""
    return false() if "\0" in run_id else runs.c.run_id == run_id


def batch_key(request: Request) -> str:
    """Equal for requests that differ in their prompts only, so that one child can take them together."""
    return json.dumps(request.model_dump(exclude={"prompt", "model"}), sort_keys=True)


def to_run(row: RowMapping, position: int | None = None) -> Run:
    """A run from its row. One that a disk or a hand has damaged has failed, whatever its status; see ``is_damaged``."""
    request, result, damage = _readable(row)
    if damage is not None:
        sentence = f"The ledger's row of this run is damaged, so it cannot be run or shown: {damage}."
        result = Result(row["run_id"], failure=Failure(DAMAGED, sentence))
    return Run(
        run_id=row["run_id"],
        request=request,
        status="failed" if damage else row["status"],
        position=None if damage else position,
        accepted_at=row["accepted_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        waited_seconds=row["waited_seconds"],
        time_seconds=row["time_seconds"],
        attempts=row["attempts"],
        batch_id=row["batch_id"],
        result=result,
        last_event=row["last_event"],
    )


def is_damaged(run: Run) -> bool:
    """Whether its row could not be read as a run."""
    return run.result is not None and run.result.failure is not None and run.result.failure.code == DAMAGED


def _readable(row: RowMapping) -> tuple[Request, Result | None, str | None]:
    """The row's request and result, and what is wrong with them. What cannot be read of a request is None."""
    # JSON that does not parse comes as None: see Database.
    fields = row["request"] if isinstance(row["request"], dict) else {}
    try:
        request = Request(**fields)
        ended = row["status"] in _WITH_RESULT or row["result"] is not None
        result = _RESULT.validate_python(row["result"]) if ended else None
    except ValueError as error:
        unread: dict[str, Any] = dict.fromkeys(Request.model_fields)
        if isinstance(fields.get("prompt"), str):
            unread["prompt"] = fields["prompt"]
        return Request.model_construct(**unread), None, _sentence(error)
    return request, result, None


def _sentence(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'its JSON'}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def from_result(result: Result) -> dict[str, Any]:
    """A result, ready for JSON."""
    dumped: dict[str, Any] = _RESULT.dump_python(result, mode="json")
    return dumped


def elapsed(row: RowMapping, now_at: float, now_clock: float) -> float | None:
    """Seconds since the run was accepted; None where the host's clock was set, or the host began anew, meanwhile."""
    by_wall: float = now_at - row["accepted_at"]
    by_clock: float = now_clock - row["accepted_clock"]
    if by_clock < 0 or abs(by_wall - by_clock) > max(1.0, by_clock / 100):
        return None
    return round(by_clock, 3)


def add_events(connection: Connection, new: Iterable[tuple[int, Event]]) -> None:
    """Numbers events of runs, each after the run's latest one, and keeps them.

    Args:
        new: a run's number, and the event; in the order of the runs' numbers, so that nobody locks them crosswise.
    """
    counted_events = []
    for number, event in new:
        counted = update(runs).where(runs.c.number == number).values(last_event=runs.c.last_event + 1)
        latest = connection.execute(counted.returning(runs.c.last_event)).scalar_one_or_none()
        if latest is not None:  # otherwise the run was removed
            counted_events.append((number, latest, event))
    insert_events(connection, counted_events)


def insert_events(connection: Connection, new: Sequence[tuple[int, int, Event]]) -> None:
    """Keeps events of runs: each with the run's number and its own."""
    if new:
        names = ("run_number", "number", "kind", "at", "data")
        values = [(run, number, event.kind, event.at, event.data) for run, number, event in new]
        connection.execute(events.insert(), [dict(zip(names, each, strict=True)) for each in values])


def positions(connection: Connection, numbers: Collection[int]) -> dict[int, int]:
    """The positions in the queue of those of these runs that wait, by the runs' numbers; 1 is the next."""
    if not numbers:
        return {}
    place = func.row_number().over(partition_by=runs.c.pool, order_by=runs.c.number).label("position")
    waiting = select(runs.c.number, place).where(runs.c.status == "queued").subquery()
    wanted = select(waiting).where(waiting.c.number.in_(numbers))
    return {row.number: row.position for row in connection.execute(wanted)}


def position(connection: Connection, row: RowMapping) -> int:
    """The position of this waiting run in the queue of its pool."""
    ahead = (
        select(func.count())
        .select_from(runs)
        .where(runs.c.status == "queued", runs.c.number <= row["number"], runs.c.pool.is_not_distinct_from(row["pool"]))
    )
    return int(connection.execute(ahead).scalar_one())
