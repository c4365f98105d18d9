"""Between the door and the devices: accepts runs, lets clients wait for them, and closes in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from demo_api.config import Settings
from demo_api.device_loop import DeviceLoop
from demo_api.engine import Engine
from demo_api.errors import DeviceFailed, RunEnded, ShuttingDown
from demo_api.ledger import Ledger
from demo_api.ledger.history import Standing
from demo_api.messages import Event, Request, Run
from demo_api.watcher import Watcher

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.5
"""How often those who wait look whether their client is still there."""


class Dispatcher:
    """A ledger, and a loop for each device. All methods may be called from any thread.

    Args:
        engines: one for each device.
    """

    def __init__(self, ledger: Ledger, engines: Sequence[Engine], settings: Settings) -> None:
        self.ledger = ledger
        self._watcher = Watcher(ledger.history)
        self._loops = [DeviceLoop(ledger, engine, settings, self._watcher.ring) for engine in engines]
        self._drain = settings.drain
        self._closed = threading.Event()
        self._hurried = threading.Event()

    def start(self) -> None:
        """Starts the loops, once. Runs that an earlier server left in the line are run now."""
        for loop in self._loops:
            loop.start()

    def submit(self, requests: Sequence[Request], idempotency_key: str | None = None) -> list[Run]:
        """Puts runs into the line: all of them or none.

        Raises:
            QueueFull: more would wait than may.
            IdempotencyConflict: the key was used for other requests.
            DeviceFailed: no device is fit for a run.
            ShuttingDown: ``close`` was called.
            LedgerUnavailable: they could not be written down.
        """
        self.check()
        runs = self.ledger.line.submit(requests, self._loops[0].engine.demo(), idempotency_key)
        self._watcher.ring()
        for loop in self._loops:
            loop.ring()
        return runs

    def check(self) -> None:
        """Raises what keeps ``submit`` from accepting anything now, a full line excepted."""
        if self.closed:
            raise ShuttingDown("The server is stopping and takes no more runs.", retry_after=_COME_BACK)
        states = [self.ledger.devices.get(loop.engine.device.name) for loop in self._loops]
        if all(state.state == "failed" for state in states):
            raise DeviceFailed(f"The device has failed: {states[0].reason}")

    def wait(self, run_id: str, *, is_gone: Callable[[], bool] = lambda: False) -> Run:
        """Waits for a run's end.

        Args:
            is_gone: whether the client has hung up; then the run is cancelled if nobody else waits for it here.

        Raises:
            NoSuchRun: it is not there, or no longer.
            ShuttingDown: it goes on after this server is gone.
            LedgerUnavailable: it has ended, but its result cannot be written down now.
        """
        for standing in self._standings(run_id):
            if standing.status not in ("queued", "running"):
                break
            self._check_kept(run_id)
            if is_gone() and self._watcher.watchers(run_id) == 1:
                return self.cancel(run_id)
        run = self.ledger.history.get(run_id)
        if not run.ended:
            raise ShuttingDown(
                "The server is stopping; the run stays in the line.",
                next_step=f"GET /runs/{run_id} when the server is back.",
                run_id=run_id,
                retry_after=_COME_BACK,
            )
        return run

    def follow(self, run_id: str, after: int) -> Generator[tuple[int, Event] | None]:
        """A run's events with their numbers, from the one after ``after``, as they come; None while none comes.

        It ends after the terminal event, and when the server stops. Nobody else's events wait for a slow reader.
        """
        for standing in self._standings(run_id):
            told = self.ledger.history.events(run_id, after) if standing.last_event > after else []
            yield from told
            after = told[-1][0] if told else after
            if standing.status not in ("queued", "running") and after >= standing.last_event:
                return
            if not told:
                yield None

    def cancel(self, run_id: str) -> Run:
        """Ends a run that waits or runs.

        Raises:
            NoSuchRun: it is not there.
            RunEnded: it has ended already, and not by being cancelled.
        """
        run = self.ledger.line.cancel(run_id)
        self._watcher.ring()
        self.ledger.line.tell_positions()
        return run

    def leave(self, run_id: str) -> None:
        """A client that followed the run has hung up: cancels it if no other waits for it in this process."""
        if not self._watcher.watchers(run_id):
            with suppress(RunEnded):
                self.cancel(run_id)

    def devices(self) -> list[dict[str, object]]:
        """What ``/health`` says of each device: ``name``, ``state``, ``reason``, ``since``."""
        return [self._describe(loop.engine) for loop in self._loops]

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """Takes no more runs, gives those that run their time to end, puts them back into the line if that is over,
        and returns when no child is left.
        """
        self._closed.set()
        self._watcher.wake()
        for loop in self._loops:
            loop.close()
        deadline = time.monotonic() + self._drain
        while not all(loop.join(0) for loop in self._loops) and time.monotonic() < deadline:
            if self._hurried.wait(0.02):
                break
        for loop in self._loops:
            loop.give_back()
        for loop in self._loops:
            loop.join()
        self._watcher.ring()

    def hurry(self) -> None:
        """Cuts short the time that ``close`` gives, and the grace of the children."""
        self._hurried.set()
        for loop in self._loops:
            loop.engine.hurry()

    def _standings(self, run_id: str) -> Iterator[Standing]:
        """How far the run is, again and again, until the server stops and the run is not on its way here."""
        standing: Standing | None = None
        with self._watcher.watch(run_id):
            while True:
                if standing is None:
                    self.ledger.history.get(run_id)  # or there is nothing to wait for
                standing = self._watcher.wait(run_id, standing, _LOOK_UP_SECONDS)
                if standing is not None:
                    yield standing
                    if self.closed and standing.status == "queued":
                        return

    def _check_kept(self, run_id: str) -> None:
        for loop in self._loops:
            problem = loop.unkept.get(run_id)
            if problem is not None:
                raise type(problem)(
                    f"The run has ended, but its result cannot be kept: {problem}",
                    next_step=f"{problem.next_step} The server goes on trying: then GET /runs/{run_id} has the result.",
                    run_id=run_id,
                )

    def _describe(self, engine: Engine) -> dict[str, object]:
        known = self.ledger.devices.get(engine.device.name)
        busy = engine.device.has_child() or self.ledger.line.batches(engine.device.name, "open")
        state = "busy" if busy and known.state in ("free", "suspect") else known.state
        return {"name": engine.device.name, "state": state, "reason": known.reason, "since": known.since}


_COME_BACK = 30
"""Seconds after which a server that was told to stop may be back."""
