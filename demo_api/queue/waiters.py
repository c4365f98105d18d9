"""Tells who waits for a run that something has happened in it, whichever process did it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from demo_api.errors import LedgerUnavailable
from demo_api.queue import History
from demo_api.queue.history import RunProgress

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
"""How often the ledger is looked at for what other processes did, while somebody waits here."""


class RunWaiters:
    """One look at the ledger for all who wait in this process, so that their number costs the ledger nothing."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._watched: Counter[str] = Counter()
        self._progress_of: dict[str, RunProgress] = {}
        self._changed = threading.Condition()
        self._rung = threading.Event()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Something was changed in the ledger by this process: look at once."""
        self._rung.set()

    def wake(self) -> None:
        """Lets everybody who waits look at what else they wait for."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def watch(self, run_id: str) -> Iterator[None]:
        """Within this, ``wait`` may be called for the run."""
        with self._changed:
            self._watched[run_id] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watcher", daemon=True)
                self._thread.start()
        self.ring()
        try:
            yield
        finally:
            with self._changed:
                self._watched[run_id] -= 1
                if not self._watched[run_id]:
                    del self._watched[run_id]
                    self._progress_of.pop(run_id, None)

    def watchers(self, run_id: str) -> int:
        """How many wait for the run in this process."""
        with self._changed:
            return self._watched[run_id]

    def wait(self, run_id: str, seen: RunProgress | None, seconds: float) -> RunProgress | None:
        """Waits until the run is no longer as ``seen``, or was woken, or for so many seconds.

        Returns:
            how far it is now; None when that is not known (yet).
        """
        with self._changed:
            if self._progress_of.get(run_id) == seen:
                self._changed.wait(seconds)
            return self._progress_of.get(run_id)

    def _look(self) -> None:
        while True:
            with self._changed:
                run_ids = list(self._watched)
                if not run_ids:  # nobody waits any more; the next one who does starts another thread
                    self._thread = None
                    return
            self._rung.clear()
            try:
                progress_of = self._history.progress_of(run_ids)
            except LedgerUnavailable as error:
                logger.warning("%s", error)
                progress_of = None
            with self._changed:
                if progress_of is not None and progress_of != self._progress_of:
                    self._progress_of = {
                        run_id: each for run_id, each in progress_of.items() if run_id in self._watched
                    }
                    self._changed.notify_all()
            self._rung.wait(_LOOK_SECONDS)
