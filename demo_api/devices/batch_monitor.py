"""Looks after one batch while its child runs: its events, its lease, and whether it is still wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from demo_api.errors import LedgerUnavailable
from demo_api.messages import Batch, Event
from demo_api.queue import RunQueue
from demo_api.transcript.text_so_far import TextSoFar

logger = logging.getLogger(__name__)

TELL_SECONDS = 0.2
"""How often events are written into the ledger, at most."""


class EventBuffer:
    """The events of one batch on their way into the ledger. It is the engine's listener."""

    def __init__(self, batch: Batch) -> None:
        self._lock = threading.Lock()
        self._texts = {run.run_id: TextSoFar(run.request.prompt) for run in batch.runs}
        self._told: dict[str, list[Event]] = {}

    def __call__(self, run_id: str, event: Event) -> None:
        """Takes an event in: every phase, the latest progress, and what each text adds to those before it."""
        if event.kind == "text":
            added = self._texts[run_id].feed(str(event.data["tail"]))
            if not added:
                return
            event = Event("text", event.at, {"added": added, "best_effort": True})
        elif event.kind == "phase":
            logger.info("run %s: %s", run_id, event.data["phase"], extra={"run_id": run_id})
        with self._lock:
            _join(self._told.setdefault(run_id, []), event)

    def take(self) -> dict[str, list[Event]]:
        """What has come since the last time, by the runs' ids."""
        with self._lock:
            told, self._told = self._told, {}
        return told

    def put_back(self, told: dict[str, list[Event]]) -> None:
        """What could not be told: it is taken again, before what has come since."""
        with self._lock:
            newer, self._told = self._told, told
            for run_id, events in newer.items():
                for event in events:
                    _join(told.setdefault(run_id, []), event)


def _join(told: list[Event], event: Event) -> None:
    place = next((place for place, each in enumerate(told) if each.kind == event.kind != "phase"), None)
    if place is None:
        told.append(event)
    elif event.kind == "text":
        added = f"{told[place].data['added']}{event.data['added']}"
        told[place] = Event("text", event.at, {**event.data, "added": added})
    else:
        told[place] = event


class BatchMonitor:
    """A thread beside the one that follows the child.

    Args:
        cancel: ends the batch, with a reason.
        changed: is called when the ledger was.
    """

    def __init__(
        self,
        line: RunQueue,
        batch: Batch,
        recorder: EventBuffer,
        *,
        lease: float,
        cancel: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._line = line
        self._batch_id = batch.batch_id
        self._recorder = recorder
        self._beat_seconds = lease / 4
        self._next_beat = time.monotonic() + self._beat_seconds
        self._cancel = cancel
        self._changed = changed
        self._reason: str | None = None  # why the batch was cancelled
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{batch.batch_id}")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        self._carefully(self._line.announce_positions)
        while not self._ended.wait(TELL_SECONDS):
            self._carefully(self._tell)
            self._carefully(self._look)
        self._carefully(self._tell)

    def _tell(self) -> None:
        told = self._recorder.take()
        if not told:
            return
        try:
            self._line.tell(self._batch_id, told)
        except LedgerUnavailable:
            self._recorder.put_back(told)
            raise
        self._changed()

    def _look(self) -> None:
        # A batch that was lost has no running run either: only the beat tells.
        unwanted = self._reason is None and not self._line.is_wanted(self._batch_id)
        if unwanted or time.monotonic() >= self._next_beat:
            if not self._line.beat(self._batch_id):
                self._end("child_lost")
            elif unwanted:
                self._end("cancelled")
            self._next_beat = time.monotonic() + self._beat_seconds

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            logger.warning("batch %s: %s", self._batch_id, reason)
            self._cancel(reason)

    def _carefully(self, action: Callable[[], None]) -> None:
        # What cannot be told now is told late or not at all: the run goes on.
        try:
            action()
        except LedgerUnavailable as error:
            logger.warning("batch %s: %s", self._batch_id, error)
