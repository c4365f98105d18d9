"""Between the door and the devices: accepts runs, lets clients wait for them, and closes in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder, ended_log
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import STATES
from demo_api.devices.loop import DeviceLoop
from demo_api.direct.model import Question
from demo_api.errors import BadRequest, DeviceFailed, NoLog, RunEnded, ShuttingDown
from demo_api.messages import Event, Request, Run
from demo_api.queue import Ledger
from demo_api.queue.history import RunProgress
from demo_api.queue.waiters import RunWaiters
from demo_api.shapes import DeviceHealth, EngineHealth
from demo_api.web.engine import PendingRun

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.5
"""How often those who wait look whether their client is still there."""


class DemoEngine:
    """A ledger, and a loop for each device. All methods may be called from any thread.

    Args:
        engines: one for each device.
    """

    def __init__(self, ledger: Ledger, engines: Sequence[BatchRunner], settings: Settings) -> None:
        self.ledger = ledger
        self.engine_name = engines[0].name
        self._settings = settings
        self._engine = engines[0]  # for what they all have in common
        self._watcher = RunWaiters(ledger.history)
        self._loops = [DeviceLoop(ledger, engine, settings, self._watcher.ring) for engine in engines]
        self._closed = threading.Event()
        self._hurried = threading.Event()

    def start(self) -> None:
        """Starts the loops, once. Runs that an earlier server left in the line are run now."""
        for loop in self._loops:
            loop.start()

    def listen(self, on_end: Callable[[Run], None]) -> None:
        """From now on this is called with every run that this process brings to its end."""
        self.ledger.queue.on_end = on_end

    def submit(self, requests: Sequence[Request], idempotency_key: str | None = None) -> list[Run]:
        """Puts runs into the line: all of them or none.

        Raises:
            BadRequest: the engine knows that it cannot do one of them.
            SetupError: the demo, its interpreter or its model is gone.
            QueueFull: more would wait than may.
            IdempotencyConflict: the key was used for other requests.
            DeviceFailed: no device is fit for a run.
            ShuttingDown: ``close`` was called.
            LedgerUnavailable: they could not be written down.
        """
        for request in requests:
            self._engine.accept(request)
        self.check()
        runs = self.ledger.queue.submit(requests, self._engine.demo(), idempotency_key)
        self._watcher.ring()
        for loop in self._loops:
            loop.ring()
        return runs

    def check(self) -> None:
        """Raises what keeps ``submit`` from accepting anything now, a full line excepted."""
        if self.closed:
            raise ShuttingDown("The server is stopping and takes no more runs.", retry_after=_COME_BACK)
        self._engine.check()
        states = [self.ledger.devices.get(loop.engine.device.name) for loop in self._loops]
        if all(state.state == "failed" for state in states):
            raise DeviceFailed(f"The device has failed: {states[0].reason}")

    def begin(self, question: Question, idempotency_key: str | None = None) -> PendingRun:
        """Submits one run for a client that waits. Raises what ``submit`` does.

        Raises:
            BadRequest: it is more than one prompt of a user: the demo's prompt file has no place for that.
        """
        if [turn.role for turn in question.turns] != ["user"]:
            raise BadRequest(
                "The demo answers one message of a user: it takes no system message, no conversation, no raw text.",
                next_step="Send one user message, or ask a direct server.",
                field="messages",
            )
        return _DemoRun(self, self.submit([question.request], idempotency_key)[0].run_id)

    def wait(self, run_id: str, *, is_gone: Callable[[], bool] = lambda: False) -> Run:
        """Waits for a run's end.

        Args:
            is_gone: whether the client has hung up; then the run is cancelled if nobody else waits for it here.

        Raises:
            NoSuchRun: it is not there, or no longer.
            ShuttingDown: it goes on after this server is gone.
            LedgerUnavailable: it has ended, but its result cannot be written down now.
        """
        for standing in self._progress_of(run_id):
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
        for standing in self._progress_of(run_id):
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
        run = self.ledger.queue.cancel(run_id)
        self._watcher.ring()
        self.ledger.queue.announce_positions()
        return run

    def leave(self, run_id: str) -> None:
        """A client that followed the run has hung up: cancels it, if that is set and no other waits for it here."""
        if self._settings.cancel_on_disconnect and not self.closed and not self._watcher.watchers(run_id):
            with suppress(RunEnded):
                self.cancel(run_id)

    def log(self, run: Run) -> str:
        """All that the run's child has printed so far.

        Raises:
            NoLog: nothing is kept of it.
        """
        folder = run.batch_id and RunFolder(self._settings.runs_dir / run.batch_id)
        if not folder or not folder.path.is_dir():
            raise NoLog(f"There is no log of run {run.run_id}: it has not started yet, or the log was removed.")
        return folder.readable_log()

    def ended_log(self, run: Run) -> str:
        """As ``log`` for a run that has ended, and empty where nothing is kept."""
        return ended_log(self._settings.runs_dir / run.batch_id) if run.batch_id else ""

    def devices(self) -> list[DeviceHealth]:
        """What ``/health`` says of each device."""
        return [self._describe(loop.engine) for loop in self._loops]

    def describe(self) -> EngineHealth:
        """What ``/health`` says of the model, the line and the devices; the best one stands for all of them."""
        devices = self.devices()
        best = min(devices, key=lambda device: STATES.index(device["state"]))
        queue = self.ledger.queue.describe()
        return {**self._engine.describe(), "queue": queue, "device": best, "devices": devices}

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
        deadline = time.monotonic() + self._settings.drain
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

    def _progress_of(self, run_id: str) -> Iterator[RunProgress]:
        """How far the run is, again and again, until the server stops and the run is not on its way here."""
        standing: RunProgress | None = None
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

    def _describe(self, engine: BatchRunner) -> DeviceHealth:
        name, taken = engine.device.name, engine.device.has_child()
        known, held = self.ledger.devices.get(name), taken and engine.device.waiting() is not None
        busy = (taken and not held) or self.ledger.queue.batches(name, "open")
        state = "busy" if busy and known.state in ("free", "suspect") else known.state
        return {
            "name": name,
            "state": state,
            "reason": known.reason,
            "since": known.since,
            "warm": "imports" if held else "off",
        }


class _DemoRun:
    def __init__(self, dispatcher: DemoEngine, run_id: str) -> None:
        self.run_id = run_id
        self._dispatcher = dispatcher

    def wait(self, is_gone: Callable[[], bool]) -> Run:
        return self._dispatcher.wait(self.run_id, is_gone=is_gone)

    def events(self) -> Generator[tuple[int, Event] | None]:
        return self._dispatcher.follow(self.run_id, 0)

    def leave(self) -> None:
        self._dispatcher.leave(self.run_id)

    def output(self, run: Run) -> str | None:
        return self._dispatcher.ended_log(run)


_COME_BACK = 30
"""Seconds after which a server that was told to stop may be back."""
