"""The loop that owns the device: takes the oldest waiting run, has the engine run it, finishes it."""

from __future__ import annotations

import logging
import math
import secrets
import statistics
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from demo_api.errors import DemoApiError, QueueFull, ShuttingDown
from demo_api.messages import Engine, Event, Listener, Request, Result, Run

logger = logging.getLogger(__name__)

_REMEMBERED_RUN_TIMES = 20


@dataclass(frozen=True)
class Pending:
    """An accepted run and the promise of its result."""

    run: Run
    result: Future[Result] = field(default_factory=Future)


class Dispatcher:
    """A bounded line of waiting runs, and the one thread that serves it. All methods may be called from any thread."""

    def __init__(self, engine: Engine, *, max_queue: int, listener: Listener | None = None) -> None:
        self._engine = engine
        self._listener = listener or _log_event
        self._max_queue = max_queue
        self._waiting: deque[Pending] = deque()
        self._running: Pending | None = None
        self._running_since = 0.0
        self._run_seconds: deque[float] = deque(maxlen=_REMEMBERED_RUN_TIMES)
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, request: Request) -> Pending:
        """Puts a request into the line.

        Raises:
            QueueFull: as many runs wait as may; ``fields["retry_after"]`` is in seconds.
            ShuttingDown: ``close`` was called.
        """
        with self._changed:
            if self._closed:
                raise ShuttingDown("The server is stopping and takes no more runs.")
            # The one that the device will take next, or has taken, waits for nothing.
            if len(self._waiting) + (self._running is not None) > self._max_queue:
                raise QueueFull(
                    f"{len(self._waiting)} runs are waiting already, and no more may wait.",
                    retry_after=self._retry_after(),
                )
            pending = Pending(Run(_new_run_id(), request, time.monotonic()))
            self._waiting.append(pending)
            self._start_thread()
            self._changed.notify_all()
            return pending

    def run_next(self) -> bool:
        """The loop's body: waits for a run, runs it, finishes it. Returns False when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return False
            pending = self._running = self._waiting.popleft()
            self._running_since = time.monotonic()
        outcome = self._outcome(pending.run)
        with self._changed:  # before the client is told, who may ask again at once
            self._run_seconds.append(time.monotonic() - self._running_since)
            self._running = None
        if isinstance(outcome, Result):
            pending.result.set_result(outcome)
        else:
            pending.result.set_exception(outcome)
        return True

    def describe(self) -> dict[str, int]:
        """What ``/health`` says of the line."""
        with self._changed:
            return {"waiting": len(self._waiting), "running": int(self._running is not None), "limit": self._max_queue}

    def close(self) -> None:
        """Takes no more runs, fails those that wait, ends the one that runs, and returns when its child is gone."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for pending in left:
            pending.result.set_exception(ShuttingDown("The server is stopping; the run was not started."))
        self._engine.stop("cancelled")
        if self._thread is not None:
            self._thread.join()

    def hurry(self) -> None:
        """Cuts short the grace that ``close`` gives to the child."""
        self._engine.hurry()

    def _outcome(self, run: Run) -> Result | DemoApiError:
        try:
            result = self._engine.generate([run], self._listener)[0]
        except DemoApiError as error:
            logger.info("run %s: %s", run.run_id, error)
            return error
        except Exception as error:
            # The loop must outlive whatever goes wrong in one run, a full disk included; the client gets a sentence.
            logger.error("run %s: %s", run.run_id, error, exc_info=not isinstance(error, OSError))
            return DemoApiError(
                f"The server could not run it: {type(error).__name__}: {error}.",
                next_step="Look at the server's log, and for room and permission in its state folder.",
                run_id=run.run_id,
                exit_code=None,
                time_seconds=round(time.monotonic() - run.accepted_at, 3),
            )
        logger.info("run %s: %s", run.run_id, result.failure.code if result.failure else "succeeded")
        return result

    def _start_thread(self) -> None:
        # Not before the first run: a server that forks workers after it made the application keeps no thread.
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="dispatcher", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while self.run_next():
            pass

    def _retry_after(self) -> int:
        """Whole seconds until a place in the line should be free: what is left of the run that runs.

        Before any run has ended, the time that the first one has taken so far is all that is known.
        """
        elapsed = time.monotonic() - self._running_since if self._running else 0.0
        if not self._run_seconds:
            return max(1, math.ceil(elapsed))
        return max(1, math.ceil(statistics.median(self._run_seconds) - elapsed))


def _new_run_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(4)


def _log_event(run_id: str, event: Event) -> None:
    if event.kind == "phase":
        logger.info("run %s: %s", run_id, event.data["phase"])
