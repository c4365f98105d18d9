"""Beside a running batch: writes its events, renews its lease, and cancels it when nobody wants it any more."""

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

WRITE_SECONDS = 0.2
"""How often events are written into the ledger; the first text of a run does not wait for that."""


class EventBuffer:
    """The events of one batch on their way into the ledger. It is the runner's listener."""

    def __init__(self, batch: Batch) -> None:
        self.has_first_text = threading.Event()
        """Somebody may wait for the first token of a run, and it is here. Who writes it clears this."""
        self._lock = threading.Lock()
        self._silent = {run.run_id for run in batch.runs}
        self._texts = {run.run_id: TextSoFar(run.request.prompt) for run in batch.runs}
        self._events: dict[str, list[Event]] = {}

    def __call__(self, run_id: str, event: Event) -> None:
        """Keeps every phase, the latest progress, and what each text adds to those before it."""
        if event.kind == "text" and "added" in event.data:
            event = Event("text", event.at, {"added": event.data["added"]})
        elif event.kind == "text":
            added = self._texts[run_id].feed(str(event.data["tail"]))
            if not added:
                return
            event = Event("text", event.at, {"added": added, "best_effort": True})
        elif event.kind == "phase":
            logger.info("run %s: %s", run_id, event.data["phase"], extra={"run_id": run_id})
        with self._lock:
            _join(self._events.setdefault(run_id, []), event)
            if event.kind == "text" and run_id in self._silent:
                self._silent.remove(run_id)
                self.has_first_text.set()

    def check(self) -> None:
        """Has the monitor look at once whether the batch is still wanted."""
        self.has_first_text.set()

    def take(self) -> dict[str, list[Event]]:
        """What has come since the last time, by the runs' ids."""
        with self._lock:
            events, self._events = self._events, {}
        return events

    def put_back(self, events: dict[str, list[Event]]) -> None:
        """Keeps what could not be written; it is taken again, before what has come since."""
        with self._lock:
            newer, self._events = self._events, events
            for run_id, later in newer.items():
                for event in later:
                    _join(events.setdefault(run_id, []), event)


def _join(events: list[Event], event: Event) -> None:
    index = next((index for index, each in enumerate(events) if each.kind == event.kind != "phase"), None)
    if index is None:
        events.append(event)
    elif event.kind == "text":
        added = f"{events[index].data['added']}{event.data['added']}"
        events[index] = Event("text", event.at, {**event.data, "added": added})
    else:
        events[index] = event


class BatchMonitor:
    """A thread beside the one that follows the child, for as long as the ``with`` block runs.

    Args:
        cancel: ends the batch, with a reason.
        end_users: ends the answers of these users, by their places in the batch; the others' go on.
        changed: is called when the ledger was changed.
    """

    def __init__(
        self,
        queue: RunQueue,
        batch: Batch,
        events: EventBuffer,
        *,
        lease: float,
        cancel: Callable[[str], None],
        end_users: Callable[[list[int]], None],
        changed: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._batch_id = batch.batch_id
        self._events = events
        self._beat_seconds = lease / 4
        self._next_beat = time.monotonic() + self._beat_seconds
        self._cancel = cancel
        self._end_users = end_users
        self._users = {run.run_id: user for user, run in enumerate(batch.runs)}  # whose runs are wanted
        self._changed = changed
        self._reason: str | None = None  # why the batch was cancelled
        self._logged = ""
        self._has_ended = False
        self._thread = threading.Thread(target=self._work, name=f"monitor-{batch.batch_id}")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_ended = True
        self._events.has_first_text.set()
        self._thread.join()

    def _work(self) -> None:
        while self._waits():
            self._try(self._write_events)
            self._try(self._check_wanted)
        self._try(self._write_events)

    def _waits(self) -> bool:
        """Waits until it is time to write. False: the batch has ended."""
        self._events.has_first_text.wait(WRITE_SECONDS)
        self._events.has_first_text.clear()
        return not self._has_ended

    def _write_events(self) -> None:
        events = self._events.take()
        if not events:
            return
        try:
            self._queue.append_events(self._batch_id, events)
        except LedgerUnavailable:
            self._events.put_back(events)
            raise
        self._changed()

    def _check_wanted(self) -> None:
        wanted = self._queue.wanted(self._batch_id)
        gone = [user for run_id, user in self._users.items() if run_id not in wanted]
        self._users = {run_id: user for run_id, user in self._users.items() if run_id in wanted}
        # A batch that was lost has no running run either: only the beat tells.
        unwanted = self._reason is None and not wanted
        if unwanted or time.monotonic() >= self._next_beat:
            if not self._queue.beat(self._batch_id):
                self._end("child_lost")
            elif unwanted:
                self._end("cancelled")
            self._next_beat = time.monotonic() + self._beat_seconds
        elif gone:
            self._end_users(gone)

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            logger.warning("batch %s: %s", self._batch_id, reason)
            self._cancel(reason)

    def _try(self, action: Callable[[], None]) -> None:
        # What cannot be written now is written late or not at all: the batch goes on.
        try:
            action()
        except LedgerUnavailable as error:
            if str(error) != self._logged:  # it is tried again several times a second
                logger.warning("batch %s: %s", self._batch_id, error)
            self._logged = str(error)
