"""Submissions that come at the same moment share one transaction, and so one flush of the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from demo_api.errors import DemoApiError, IdempotencyConflict, QueueFull
from demo_api.messages import Request, Run
from demo_api.queue.database import Database

_MOST_AT_ONCE = 64
"""Submissions of one transaction: those who wait for other writes must not wait for long."""


@dataclass(eq=False)
class Submission:
    """Requests that are accepted together or not at all, and what became of them."""

    requests: Sequence[Request]
    idempotency_key: str | None
    pool: str | None
    runs: list[Run] | None = None
    error: DemoApiError | None = None


class Submissions:
    """Writes submissions down. Whoever has the lock writes for all who wait for it.

    Args:
        insert: accepts one submission; it raises QueueFull or IdempotencyConflict before it has written anything.
    """

    def __init__(self, database: Database, insert: Callable[[Connection, Submission], list[Run]]) -> None:
        self._database = database
        self._insert = insert
        self._writing = threading.Lock()
        self._waiting: list[Submission] = []  # append and pop are atomic

    def write(self, submission: Submission) -> list[Run]:
        """Returns when the runs are on the disk.

        Raises:
            QueueFull, IdempotencyConflict: as ``insert``; of this submission alone.
            LedgerUnavailable: nothing was written of it, nor of those it was to be written with.
        """
        self._waiting.append(submission)
        with self._writing:
            while submission in self._waiting:
                self._write_all()
        if submission.runs is None:
            raise submission.error or RuntimeError("the submission was forgotten")
        return submission.runs

    def _write_all(self) -> None:
        together, self._waiting[:_MOST_AT_ONCE] = self._waiting[:_MOST_AT_ONCE], []
        accepted: list[tuple[Submission, list[Run]]] = []
        try:
            with self._database.write() as connection:
                self._database.lock(connection, {name for each in together for name in _locked_by(each)})
                for each in together:
                    try:
                        accepted.append((each, self._insert(connection, each)))
                    except (QueueFull, IdempotencyConflict) as error:
                        each.error = error
        except DemoApiError as error:
            for each in together:
                each.error = each.error or error
            return
        for each, runs in accepted:
            each.runs = runs


def _locked_by(submission: Submission) -> Iterator[str]:
    """What two submissions must not change at the same time: the queue of their pool, and what their key stands for."""
    yield f"pool {submission.pool or ''}"
    if submission.idempotency_key is not None:
        yield f"key {submission.idempotency_key}"
