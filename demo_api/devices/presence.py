"""What a worker shows of itself to the other processes of a database: that it lives, its model and its devices."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

from demo_api.errors import DemoApiError, LedgerUnavailable
from demo_api.messages.health import DeviceHealth, PoolModel
from demo_api.queue import Ledger, Session

logger = logging.getLogger(__name__)

_PUBLISH_SECONDS = 1.0


class Presence:
    """A worker among the others, from ``start`` to ``close``; its session is made anew whenever it is lost.

    Args:
        model: says what it runs; what it raises keeps the worker from being seen.
        devices: how they are now.
    """

    def __init__(
        self,
        ledger: Ledger,
        session: Session,
        model: Callable[[], PoolModel],
        devices: Callable[[], list[DeviceHealth]],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._model = model
        self._devices = devices
        self._published: list[DeviceHealth] = []
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to be seen, once."""
        if self._thread is None:
            self._session.start(self._enlist, self._note)
            self._thread = threading.Thread(target=self._publish, name="presence", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Takes leave of the others."""
        number = self._ledger.queue.worker
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._session.close()
        if number is not None:
            with suppress(LedgerUnavailable):  # they see it anyway
                self._ledger.workers.note_gone(number)

    def _enlist(self, number: int | None) -> int:
        self._published = self._devices()
        return self._ledger.workers.add(version("demo-api"), self._model(), self._published, number)

    def _note(self, number: int | None) -> None:
        self._ledger.queue.worker = number

    def _publish(self) -> None:
        logged = ""
        while not self._closed.wait(_PUBLISH_SECONDS):
            number = self._ledger.queue.worker
            try:
                devices = self._devices()
                if number is not None and devices != self._published:
                    self._ledger.workers.publish(number, devices)
                    self._published = devices
                self._ledger.workers.note_gone()
            except Exception as error:  # it is tried again in a second
                if str(error) != logged:
                    logger.warning("%s", error, exc_info=not isinstance(error, DemoApiError))
                logged = str(error)
