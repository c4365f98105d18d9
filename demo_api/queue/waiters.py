"""Wakes threads that wait for a run, whichever process changed it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from demo_api.errors import LedgerUnavailable
from demo_api.queue.history import History, RunProgress

logger = logging.getLogger(__name__)


class _Watched:
    """One run that somebody waits for."""

    def __init__(self, lock: threading.Lock) -> None:
        self.waiting = 0
        self.following = 0  # those of them who want its position
        self.latest: RunProgress | None = None
        self.changed = threading.Condition(lock)


class RunWaiters:
    """One thread reads the ledger for all who wait in this process, so that their number costs the ledger nothing.

    Args:
        check_seconds: how often it looks for what other processes did, while somebody waits.
    """

    def __init__(self, history: History, check_seconds: float) -> None:
        self._history = history
        self._check_seconds = check_seconds
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._notified = threading.Event()
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """This process has changed the ledger: check at once."""
        self._notified.set()

    def wake(self) -> None:
        """Lets everybody who waits check what else they wait for."""
        with self._lock:
            for run in self._watched.values():
                run.changed.notify_all()

    @contextmanager
    def watch(self, run_id: str, *, follows: bool = False) -> Iterator[None]:
        """Within this, ``wait`` may be called for the run.

        Args:
            follows: whether the caller wants the run's position.
        """
        with self._lock:
            run = self._watched.setdefault(run_id, _Watched(self._lock))
            run.waiting += 1
            run.following += follows
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="waiters", daemon=True)
                self._thread.start()
        self.notify()
        try:
            yield
        finally:
            with self._lock:
                run.waiting -= 1
                run.following -= follows
                if not run.waiting:
                    del self._watched[run_id]

    def count(self, run_id: str) -> int:
        """How many wait for the run in this process."""
        with self._lock:
            run = self._watched.get(run_id)
            return run.waiting if run else 0

    def wait(self, run_id: str, seen: RunProgress | None, seconds: float) -> RunProgress | None:
        """Waits until the run is no longer as ``seen``, or ``wake`` was called, or for so many seconds.

        Returns:
            how far it is now; None when that is not known (yet).
        """
        with self._lock:
            run = self._watched[run_id]
            if run.latest == seen:
                run.changed.wait(seconds)
            return run.latest

    def _work(self) -> None:
        logged = ""
        while True:
            with self._lock:
                run_ids = list(self._watched)
                followed = {run_id for run_id, run in self._watched.items() if run.following}
                if not run_ids:  # nobody waits any more; the next one who does starts another thread
                    self._thread = None
                    return
            self._notified.clear()
            try:
                self._take(self._history.progress(run_ids, followed))
            except LedgerUnavailable as error:
                if str(error) != logged:  # it is tried again ten times a second
                    logger.warning("%s", error)
                logged = str(error)
            self._notified.wait(self._check_seconds)

    def _take(self, latest: dict[str, RunProgress]) -> None:
        """Keeps how far the runs are, and wakes those who wait for one that has changed."""
        with self._lock:
            for run_id, run in self._watched.items():
                if run.latest != latest.get(run_id):
                    run.latest = latest.get(run_id)
                    run.changed.notify_all()
