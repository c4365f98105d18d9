"""Gives requests to threads: those that only look come first, and of the others few work at the same time.

All threads share one interpreter: where hundreds of them want to work, each gets a moment in seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

logger = logging.getLogger(__name__)

_WORKING = 4
"""Requests that change something and work at the same time. One that waits for its run does not work."""

_LONG_SECONDS = 1.0
"""After so long a request no longer counts as working: it waits for something, a locked ledger for instance."""

_SPARE_SECONDS = 30.0
"""How long a thread waits for a request before it ends."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_turn = threading.local()


class Task(Protocol):
    """A connection with a request, as waitress has it."""

    requests: list[object]

    def service(self) -> None:
        """Answers the request."""

    def cancel(self) -> None:
        """Closes the connection."""


def leave_turn() -> None:
    """This thread's request waits from here on: another may work. Without effect on other web servers."""
    if getattr(_turn, "dispatcher", None) is not None:
        _turn.dispatcher.leave()


class Dispatcher:
    """Takes the place of waitress's own, which keeps all threads for ever and knows one queue.

    Args:
        most_threads: how many there may be.

    Raises:
        RuntimeError: so many cannot be started.
    """

    def __init__(self, most_threads: int) -> None:
        self._most = most_threads
        self._changed = threading.Condition()
        self._looking: deque[Task] = deque()
        self._others: deque[Task] = deque()
        self._threads = 0
        self._idle = 0  # threads that wait, and that were started and have taken nothing yet
        self._turns: dict[int, float] = {}  # since when which thread works
        self._stopped = False
        with self._changed:
            for _ in range(most_threads):  # once all, so that a limit of memory shows now; those not needed end soon
                self._start_thread()

    def add_task(self, task: Task) -> None:
        """Queues a connection's first request."""
        is_safe = getattr(task.requests[0], "command", "") in _SAFE
        with self._changed:
            (self._looking if is_safe else self._others).append(task)
            self._wake()

    def leave(self) -> None:
        """The request of this thread is done, or waits."""
        with self._changed:
            if self._turns.pop(threading.get_ident(), None) is not None:
                self._wake()

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> None:
        """Ends the threads, and closes the connections of requests that none has taken."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            while self._threads and time.monotonic() < deadline:
                self._changed.wait(0.1)
            waiting = [*self._looking, *self._others] if cancel_pending else []
            self._looking.clear()
            self._others.clear()
        for task in waiting:
            task.cancel()

    def _wake(self) -> None:
        """Lets idle threads take what can be taken, and starts those that are missing."""
        takeable = len(self._looking) + min(len(self._others), self._free_turns())
        if self._others:
            takeable = max(takeable, 1)  # somebody sees when a turn lasts for too long
        self._changed.notify(takeable)
        while self._idle < takeable and self._threads < self._most:
            try:
                self._start_thread()
            except RuntimeError as error:  # requests wait for those that are there
                logger.warning("of at most %d threads for requests there are %d: %s", self._most, self._threads, error)
                return

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name=f"waitress-{self._threads + 1}", daemon=True).start()
        self._threads += 1
        self._idle += 1

    def _work(self) -> None:
        _turn.dispatcher = self
        while (task := self._take()) is not None:
            try:
                task.service()
            except BaseException:
                logger.exception("a request could not be answered")
            finally:
                self.leave()
                with self._changed:
                    self._idle += 1

    def _take(self) -> Task | None:
        """The next request; None when this thread, which counts as idle until then, is to end."""
        deadline = time.monotonic() + _SPARE_SECONDS
        with self._changed:
            while not self._stopped:
                task = self._next()
                if task is not None:
                    self._idle -= 1
                    self._wake()  # for those behind it
                    return task
                if time.monotonic() >= deadline and not self._others:
                    break
                self._changed.wait(_LONG_SECONDS if self._others else deadline - time.monotonic())
            self._idle -= 1
            self._threads -= 1
            self._changed.notify_all()
            return None

    def _next(self) -> Task | None:
        if self._looking:
            return self._looking.popleft()
        if self._others and self._free_turns() > 0:
            self._turns[threading.get_ident()] = time.monotonic()
            return self._others.popleft()
        return None

    def _free_turns(self) -> int:
        now = time.monotonic()
        return max(0, _WORKING - sum(now - since < _LONG_SECONDS for since in self._turns.values()))
