"""What a door may do with runs: submit them, wait for them, follow them, cancel them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from demo_api.config import Settings
from demo_api.demo.run_folder import check_room
from demo_api.errors import BadRequest, LedgerUnavailable, RunEnded, ShuttingDown
from demo_api.messages import Event, Question, Request, Run
from demo_api.messages.health import DEVICE_STATES, DeviceHealth, EngineHealth, Estimate, LabHealth
from demo_api.queue import Ledger, Worker
from demo_api.queue.history import RunProgress
from demo_api.queue.lab import describe_nodes, describe_pools
from demo_api.queue.logs import Logs
from demo_api.queue.pools import Demo
from demo_api.queue.session import BEAT_SECONDS, CHANGED
from demo_api.queue.waiters import RunWaiters

_CHECK_CLIENT_SECONDS = 0.5
"""How often it is checked whether a client that waits is still there."""

_UNHEARD_SECONDS = 0.1
"""How often the ledger is checked for what other processes did, where nothing notifies of that."""

_RETURN_SECONDS = 30
"""Seconds after which a server that stops may be back."""


class Door:
    """Accepts runs and serves those who wait for them. All methods may be called from any thread.

    Args:
        demo: what the runs are for.

    Raises:
        SetupError, LedgerUnavailable: as ``Ledger.session``.
    """

    engine_name = "demo"
    runs_here = False
    """Whether this process runs what it accepts."""

    def __init__(self, ledger: Ledger, demo: Demo, settings: Settings) -> None:
        self.ledger = ledger
        self.logs = Logs(ledger, settings.runs_dir)
        self._demo = demo
        self._settings = settings
        self._session = ledger.session(self._hear)
        self._waiters = RunWaiters(ledger.history, _UNHEARD_SECONDS if self._session is None else BEAT_SECONDS)
        self._closed = threading.Event()

    def listen(self, on_end: Callable[[Run], None]) -> None:
        """Calls this with every run that this process brings to its end."""
        self.ledger.queue.on_end = on_end

    def check(self) -> None:
        """Raises what keeps ``submit`` from accepting anything now, a full queue excepted, or will do so soon."""
        self._check_open()
        self._demo.check()
        check_room(self._settings.state_dir)
        self.ledger.check()
        self._check_devices()

    def submit(self, requests: Sequence[Request], idempotency_key: str | None = None) -> list[Run]:
        """Queues runs: all of them or none.

        Raises:
            ModelNotFound, NoWorker: nobody has the model that they ask for.
            BadRequest: the demo is known to be unable to answer one of them.
            SetupError: the demo, its interpreter or its model is gone.
            QueueFull: more would wait than may.
            IdempotencyConflict: the key was used for other requests.
            DeviceFailed: no device is fit for a run.
            ShuttingDown: ``close`` was called.
            LedgerUnavailable: they could not be written down.
        """
        self._check_open()
        pool = self._demo.pool_of(requests)
        if idempotency_key is None:
            self.ledger.queue.check_room(pool)
        self._demo.accept(requests, pool)
        if self._demo.is_only_here(pool):
            self._check_devices()
        runs = self.ledger.queue.submit(requests, idempotency_key, pool)
        self._waiters.notify()
        return runs

    def begin(self, question: Question, idempotency_key: str | None = None) -> DemoRun:
        """Submits one run for a client that waits. Raises what ``submit`` does.

        Raises:
            BadRequest: it is more than one prompt of a user, or has stop sequences: the demo's prompt file has no place
                for that.
        """
        if [turn.role for turn in question.turns] != ["user"]:
            raise BadRequest(
                "The demo answers a single user message: no system message, conversation or raw text.",
                next_step="Send one user message, or ask a direct server.",
                field="messages",
            )
        if question.stop:
            raise BadRequest(
                "The field 'stop' cannot be used: the demo has no stop sequences.",
                next_step="Leave it out, or ask a direct server.",
                field="stop",
            )
        return DemoRun(self, self.submit([question.request], idempotency_key)[0].run_id)

    def estimate(self, run: Run) -> Estimate | None:
        """How long runs like this one usually take; None if that is not known, or the ledger cannot be read now."""
        try:
            return self.ledger.history.estimate(run)
        except LedgerUnavailable:  # the run was accepted, and that is what its client must hear
            return None

    def wait(self, run_id: str, *, is_gone: Callable[[], bool] = lambda: False) -> Run:
        """Waits for a run's end.

        Args:
            is_gone: whether the client has hung up; then the run is cancelled if nobody else waits for it here.

        Raises:
            NoSuchRun: it is not there, or no longer.
            ShuttingDown: it goes on after this server is gone.
            LedgerUnavailable: it has ended, but its result cannot be written down now.
        """
        for progress in self._progress_of(run_id):
            if progress.ended:
                break
            self._check_kept(run_id)
            if is_gone() and self._waiters.count(run_id) == 1:
                return self.cancel(run_id)
        run = self.ledger.history.get(run_id)
        if not run.ended:
            stays = "stays in the queue" if run.status == "queued" else "goes on elsewhere"
            raise ShuttingDown(
                f"The server is stopping; the run {stays}.",
                next_step=f"GET /runs/{run_id} when the server is back.",
                run_id=run_id,
                retry_after=_RETURN_SECONDS,
            )
        return run

    def follow(self, run_id: str, after: int) -> Generator[tuple[int, Event] | None]:
        """A run's events with their numbers, from the one after ``after``, as they come; None while none comes.

        ``position`` is not kept: it is made for who follows, and has the number of the event before it. The stream ends
        after the terminal event, and when the server stops. A slow reader delays nobody else's events.
        """
        position: object = None
        for progress in self._progress_of(run_id, follows=True):
            events = self.ledger.history.events(run_id, after) if progress.last_event > after else []
            yield from events
            if events:
                after, latest = events[-1]
                position = latest.data.get("position")
            if progress.ended and after >= progress.last_event:
                return
            # Events may be newer than the progress: the run has started then, and has no position.
            if progress.position not in (None, position) and after == progress.last_event:
                position = progress.position
                yield after, Event("position", time.time(), {"position": position})
            elif not events:
                yield None

    def cancel(self, run_id: str) -> Run:
        """Ends a run that waits or runs.

        Raises:
            NoSuchRun: it is not there.
            RunEnded: it has ended already, and not by being cancelled.
        """
        run = self.ledger.queue.cancel(run_id)
        self._waiters.notify()
        return run

    def leave(self, run_id: str) -> None:
        """A client that followed the run has hung up: cancels it, if that is set and nobody else waits for it here."""
        if self._settings.cancels_on_disconnect and not self.closed and not self._waiters.count(run_id):
            with suppress(RunEnded):
                self.cancel(run_id)

    def describe(self) -> EngineHealth:
        """The model, the queue and the devices, as ``/health`` shows them; the best device stands for all of them."""
        workers = self.ledger.workers.live()
        devices = self._describe_devices(workers)
        best = min(devices, key=lambda device: DEVICE_STATES.index(device["state"]), default=None)
        return {
            **self._demo.describe(),
            **self._describe_lab(workers),
            "model_loaded": any(device["warm"] == "model" for device in devices),
            "queue": self.ledger.queue.describe(),
            "device": best,
            "devices": devices,
            "estimate": self.ledger.history.estimate(None),
        }

    def models(self) -> list[str]:
        """The names of the models that a request may ask for."""
        return self._demo.models()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def start(self) -> None:
        """Begins to work, once."""
        if self._session is not None:
            self._session.start()

    def close(self) -> None:
        """Takes no more runs, and lets those go who wait for one that has not started, or runs elsewhere."""
        self._closed.set()
        self._waiters.wake()
        if self._session is not None and not self.runs_here:
            self._session.close()

    def hurry(self) -> None:
        """Cuts short the time that ``close`` takes."""

    def _describe_devices(self, workers: Sequence[Worker]) -> list[DeviceHealth]:
        """Each device of the workers that live, with its node's name."""
        found: dict[str, DeviceHealth] = {}
        for worker in workers:
            for device in worker.devices:  # which servers of one node share
                name = f"{worker.node}/{device['name']}"
                found[name] = {**device, "name": name}
        return list(found.values())

    def _describe_lab(self, workers: Sequence[Worker]) -> LabHealth:
        if not self.ledger.has_many_hosts:
            return {"nodes": [], "pools": []}
        return {"nodes": describe_nodes(workers), "pools": describe_pools(workers, self.ledger.history)}

    def _hear(self, channel: str, _payload: str) -> None:
        if channel == CHANGED:
            self._waiters.notify()

    def _check_open(self) -> None:
        if self.closed:
            raise ShuttingDown("The server is stopping and accepts no more runs.", retry_after=_RETURN_SECONDS)

    def _check_devices(self) -> None:
        """Raises DeviceFailed or DeviceUnavailable if no device of this process is fit for a run."""

    def _check_kept(self, run_id: str) -> None:
        """Raises LedgerUnavailable if the run has ended here and its result cannot be written down."""

    def _progress_of(self, run_id: str, *, follows: bool = False) -> Iterator[RunProgress]:
        """How far the run is, again and again, until the server stops and the run has not started."""
        progress: RunProgress | None = None
        with self._waiters.watch(run_id, follows=follows):
            while True:
                if progress is None:
                    self.ledger.history.get(run_id)  # or there is nothing to wait for
                progress = self._waiters.wait(run_id, progress, _CHECK_CLIENT_SECONDS)
                if progress is not None:
                    yield progress
                    if self.closed and (progress.status == "queued" or not self.runs_here):
                        return


class DemoRun:
    """One run, for the client that submitted it and waits."""

    def __init__(self, door: Door, run_id: str) -> None:
        self.run_id = run_id
        self._door = door

    def run(self) -> Run:
        """The run as the ledger has it."""
        return self._door.ledger.history.get(self.run_id)

    def wait(self, is_gone: Callable[[], bool]) -> Run:
        """Waits; a run that others wait for too outlives its client."""
        return self._door.wait(self.run_id, is_gone=is_gone)

    def events(self) -> Generator[tuple[int, Event] | None]:
        """Follows the run from its first event."""
        return self._door.follow(self.run_id, 0)

    def leave(self) -> None:
        """Cancels the run, if that is set and nobody else waits for it."""
        self._door.leave(self.run_id)

    def output(self, run: Run) -> str | None:
        """The child's log."""
        return self._door.logs.of_ended(run)
