"""Wakes threads that wait for a run, whichever process changed it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from demo_api.errors import LedgerUnavailable
from demo_api.queue.history import History, RunProgress

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 0.1
"""How often the ledger is checked for what other processes did, while somebody waits here."""


class RunWaiters:
    """One thread reads the ledger for all who wait in this process, so that their number costs the ledger nothing."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._watched: Counter[str] = Counter()
        self._latest: dict[str, RunProgress] = {}
        self._changed = threading.Condition()
        self._notified = threading.Event()
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """This process has changed the ledger: check at once."""
        self._notified.set()

    def wake(self) -> None:
        """Lets everybody who waits check what else they wait for."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def watch(self, run_id: str) -> Iterator[None]:
        """Within this, ``wait`` may be called for the run."""
        with self._changed:
            self._watched[run_id] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="waiters", daemon=True)
                self._thread.start()
        self.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched[run_id] -= 1
                if not self._watched[run_id]:
                    del self._watched[run_id]
                    self._latest.pop(run_id, None)

    def count(self, run_id: str) -> int:
        """How many wait for the run in this process."""
        with self._changed:
            return self._watched[run_id]

    def wait(self, run_id: str, seen: RunProgress | None, seconds: float) -> RunProgress | None:
        """Waits until the run is no longer as ``seen``, or ``wake`` was called, or for so many seconds.

        Returns:
            how far it is now; None when that is not known (yet).
        """
        with self._changed:
            if self._latest.get(run_id) == seen:
                self._changed.wait(seconds)
            return self._latest.get(run_id)

    def _work(self) -> None:
        logged = ""
        while True:
            with self._changed:
                run_ids = list(self._watched)
                if not run_ids:  # nobody waits any more; the next one who does starts another thread
                    self._thread = None
                    return
            self._notified.clear()
            try:
                latest = self._history.progress(run_ids)
            except LedgerUnavailable as error:
                if str(error) != logged:  # it is tried again ten times a second
                    logger.warning("%s", error)
                logged, latest = str(error), None
            with self._changed:
                if latest is not None and latest != self._latest:
                    self._latest = {run_id: each for run_id, each in latest.items() if run_id in self._watched}
                    self._changed.notify_all()
            self._notified.wait(_CHECK_SECONDS)
