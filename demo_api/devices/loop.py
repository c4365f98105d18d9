"""The loop that owns one device: takes it, claims a batch, runs it, and records how its runs ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder
from demo_api.demo.warm_child import WarmChild
from demo_api.devices.batch_monitor import BatchMonitor, EventBuffer
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import Device, DeviceLock
from demo_api.devices.output_copy import OutputCopy
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.warm import WarmPolicy, end_waiting_child
from demo_api.errors import DemoApiError, LedgerUnavailable, StorageFull
from demo_api.messages import Batch, Failure, Outcome, Result, Run
from demo_api.queue import Ledger

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""How often the ledger is checked for runs whose server is gone, and for those that nobody told of."""

BLOCKED_SECONDS = 0.1
"""How often a device is checked that another process has taken."""

RETRY_SECONDS = 1.0

HEAD_START_SECONDS = 0.03
"""How long a device without a warm child leaves a run to one with such a child."""

FAILING_SECONDS = 3.0
"""After how long a loop that meets one error after another is reported as unable to work."""


class DeviceLoop:
    """One device's loop. ``turn`` is its body, and can be called without a thread.

    Args:
        changed: is called when the ledger was changed.
        pool: whose runs are taken, by its name; None where there is one only. What it raises keeps the loop from
            taking any.
        is_warm_elsewhere: whether another device waits with a warm child for such runs.
    """

    def __init__(
        self,
        ledger: Ledger,
        device: Device,
        runner: BatchRunner,
        settings: Settings,
        changed: Callable[[], None],
        pool: Callable[[], str | None] = lambda: None,
        is_warm_elsewhere: Callable[[], bool] = lambda: False,
    ) -> None:
        self.device = device
        self.unkept: dict[str, LedgerUnavailable] = {}
        """Runs that have ended, by their ids, and why that could not be recorded yet."""
        self._ledger = ledger
        self._runner = runner
        self._settings = settings
        self._changed = changed
        self._pool = pool
        self._is_warm_elsewhere = is_warm_elsewhere
        self._woken = threading.Event()
        self._closed = False
        self._requeues = threading.Event()
        self._blocked_since: float | None = None
        self._warm = WarmPolicy(runner, device, settings)
        self._recovery = DeviceRecovery(ledger.devices, device, settings)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._batch_id: str | None = None  # what runs
        self._events: EventBuffer | None = None  # of what runs
        self._latest_pool: str | None = None
        self._recovered_at = -math.inf
        self._has_left = True  # a batch that is open or lost; unknown as yet
        self._failing: tuple[float, str] | None = None  # since when, and the latest reason

    def start(self) -> None:
        """Starts the thread, once."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name=f"device-{self.device.name}", daemon=True)
                self._thread.start()

    def wake(self, pool: str | None = None) -> None:
        """A run was submitted: claim it at once, unless it is for another pool."""
        if pool in (None, self._latest_pool):
            self._warm.touch()
            self._woken.set()

    def check_wanted(self, batch_id: str) -> None:
        """A run of this batch was cancelled: see to it at once, if the batch runs here."""
        with self._lock:
            if self._batch_id == batch_id and self._events is not None:
                self._events.check()

    def close(self) -> None:
        """Takes no further batch; the one that runs goes on. Returns at once."""
        with self._lock:
            self._closed = True
        self._woken.set()

    def requeue(self) -> None:
        """Stops the batch that runs, and puts its runs back into the queue. Returns at once."""
        self._requeues.set()
        with self._lock:
            if self._batch_id is not None:
                self._runner.cancel(self._batch_id, "shutting_down")
        self._recovery.stop()

    def hurry(self) -> None:
        """Cuts short the grace of whatever is being stopped on the device."""
        self._runner.hurry()
        self._warm.hurry()

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the thread's end. Returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    @property
    def warm_child(self) -> WarmChild | None:
        """The child that waits, or that runs a batch and may stay after it; None where there is none."""
        return self._warm.child

    @property
    def waits_warm(self) -> bool:
        """Whether a warm child waits for a run."""
        return self._warm.child is not None and self._batch_id is None

    def problem(self) -> str | None:
        """Why the loop has not been able to work for some seconds; None while it works."""
        since, reason = self._failing or (math.inf, "")
        return reason if time.monotonic() - since >= FAILING_SECONDS else None

    def has_work(self) -> bool:
        """Whether a run waits, a batch was left on this device, or the device is to be reset."""
        self._latest_pool = self._pool()
        waits, self._has_left = self._ledger.queue.work(self.device.name, self._latest_pool)
        return waits or self._has_left or self._recovery.is_due()

    def turn(self) -> bool:
        """Takes the device if it is free, and runs at most one batch.

        Returns:
            whether a batch was run, so that the next turn should follow at once.
        """
        if self._warm.child is not None and self._recovery.is_due():
            self._suspect(self._warm.end())  # no run may go to it before the reset
        if self._warm.child is not None:  # it has the lock, and what earlier servers left was ended before it started
            with self.device.share() as share:
                return self._claim(share)
        lock = self.device.try_lock()
        if lock is None:
            self._wait_for_device()
            return False
        with lock:
            if not self._recover_device(lock):
                return False
            self._blocked_since = None
            return self._recovery.prepare(lock) and self._claim(lock)

    def start_warm_child(self) -> bool:
        """Starts a child that waits for the next batch, if that is due and the device is free and well."""
        lock = self.device.try_lock() if self._warm.is_due() and self._is_free() else None
        if lock is None:
            return False
        with lock:
            if not self._recover_device(lock) or not self._is_free():  # what was left may put the device in doubt
                return False
            try:
                self._warm.start(lock)
            except (DemoApiError, OSError) as error:
                logger.warning("device %s: no child could be started ahead: %s", self.device.name, error)
                self._warm.failed()
                return False
        return True

    def _work(self) -> None:
        while not self._closed:
            self._woken.clear()
            pause = IDLE_SECONDS
            try:
                self._suspect(self._warm.check())
                if self.has_work():
                    if self._warm.child is None and self._is_warm_elsewhere():
                        self._requeues.wait(HEAD_START_SECONDS)
                    pause = 0.0 if self.turn() else BLOCKED_SECONDS
                else:
                    self._blocked_since = None  # of the next run, not of one that was cancelled or ended elsewhere
                    if self._ledger.devices.get(self.device.name).drained_at is not None:
                        self._suspect(self._warm.end())
                    self.start_warm_child()
                if self._recover_lost():
                    pause = 0.0
                self._failing = None
            except Exception as error:  # the loop must outlive whatever goes wrong, a full disk included
                self._note(error)
            self._woken.wait(self._warm.pause(pause))
        with suppress(LedgerUnavailable):
            self._suspect(self._warm.end())

    def _recover_lost(self) -> bool:
        """Once a second, puts the runs of servers that are gone, whatever their device, back into the queue."""
        if time.monotonic() - self._recovered_at < IDLE_SECONDS:
            return False
        self._recovered_at = time.monotonic()
        return bool(self._ledger.queue.recover())

    def _note(self, error: Exception) -> None:
        """Remembers why the loop cannot work now, and logs each reason once."""
        since, logged = self._failing or (time.monotonic(), "")
        self._failing = since, str(error) or type(error).__name__
        if self._failing[1] != logged:
            is_ours = not isinstance(error, OSError | DemoApiError)
            logger.error("device %s: %s", self.device.name, self._failing[1], exc_info=is_ours)

    def _is_free(self) -> bool:
        return self._ledger.devices.get(self.device.name).shown == "free"

    def _suspect(self, doubt: str | None) -> None:
        if doubt:
            self._ledger.devices.suspect(self.device.name, doubt)

    def _claim(self, lock: DeviceLock) -> bool:
        batch_id = self._warm.child.batch_id if self._warm.child else None
        batch = self._ledger.queue.claim(self.device.name, self._choose, batch_id, self._pool())
        if batch is None:
            return False
        self._changed()
        self._run(batch, lock)
        return True

    def _choose(self, runs: Sequence[Run]) -> list[Run]:
        return self._runner.choose(runs, self._warm.child)

    def _recover_device(self, lock: DeviceLock) -> bool:
        """Ends what earlier servers left on the device that we have. False: one of them is still at it."""
        queue, name = self._ledger.queue, self.device.name
        if self._has_left:
            # Where no other server shares the device, those of these batches are gone; otherwise one may be suspended.
            queue.recover(() if lock.others_serve else queue.batches(name, "open"))
            if queue.batches(name, "open"):
                return False
        self._suspect(self._recovery.clear_up())
        if self._has_left:
            queue.forget_lost(name)
        return True

    def _wait_for_device(self) -> None:
        """Ends a child that has the device although its server is gone or suspended, if it does not end by itself."""
        queue, device = self._ledger.queue, self.device
        open_now = queue.batches(device.name, "open")  # first: a server shares the lock before it claims
        queue.recover(() if device.has_server() else open_now)
        lost = queue.batches(device.name, "lost")
        if device.has_server() and not lost and not device.waiting():
            self._blocked_since = None
            return
        since = self._blocked_since = self._blocked_since or time.monotonic()
        if time.monotonic() - since >= self._settings.stop_grace:  # the kernel interrupted it when its server died
            self._suspect(self._recovery.end_lost(lost))
            # A server that is not suspended would have given it the run long ago.
            self._suspect(end_waiting_child(device, grace=self._settings.stop_grace))
            if not device.has_server():
                self._recovery.end_lost_reset()
        if time.monotonic() - since >= self._settings.run_timeout:
            self._give_up()

    def _give_up(self) -> None:
        batch = self._ledger.queue.claim(self.device.name, self._runner.choose, pool=self._pool())
        if batch is not None:
            seconds = self._settings.run_timeout
            sentence = f"Another process held the device for {seconds:g} s, so the run did not start."
            outcome = _all_failed(batch, Failure("timed_out", sentence))
            self._ledger.queue.finish(batch.batch_id, outcome.results, None)
            self._changed()

    def _run(self, batch: Batch, lock: DeviceLock) -> None:
        events, started = EventBuffer(batch), time.monotonic()
        folder = RunFolder(self._settings.runs_dir / batch.batch_id)
        copy = OutputCopy(self._ledger.output, folder, self._settings.max_output)
        monitor = BatchMonitor(
            self._ledger.queue,
            batch,
            events,
            lease=self._settings.lease,
            cancel=lambda reason: self._runner.cancel(batch.batch_id, reason),
            end_users=lambda users: self._runner.end_users(batch.batch_id, users),
            changed=self._changed,
        )
        with self._lock:
            self._batch_id, self._events = batch.batch_id, events
        if self._requeues.is_set():  # before this batch could be seen
            self._runner.cancel(batch.batch_id, "shutting_down")
        was_warm = self._warm.child is not None
        with monitor, copy:
            outcome = self._outcome(batch, events, lock)
        with self._lock:
            self._batch_id = None
        self._warm.touch()
        if outcome.again:
            self._warm.failed()
        elif was_warm:
            self._warm.succeeded()
        self._record(batch, outcome, time.monotonic() - started, copy)
        self._ledger.history.prune()

    def _outcome(self, batch: Batch, events: EventBuffer, lock: DeviceLock) -> Outcome:
        """What became of the batch, whatever happens. A warm child that does not stay, or was not used, is ended."""
        try:
            outcome = self._generate(batch, events, lock)
        except DemoApiError as error:
            outcome = _all_failed(batch, Failure(error.code, str(error), error.next_step))
        except Exception as error:
            logger.error("batch %s: %s", batch.batch_id, error, exc_info=not isinstance(error, OSError))
            outcome = _all_failed(batch, _failure(error))
        # Before the batch is closed: another server must see at any time whose the device is.
        suspect = self._warm.keep() if outcome.stays else self._warm.end()
        outcome = replace(outcome, suspect=suspect or outcome.suspect)
        for result in outcome.results:
            ending = result.failure.code if result.failure else "succeeded"
            logger.info("run %s: %s", result.run_id, ending, extra={"run_id": result.run_id})
        return outcome

    def _generate(self, batch: Batch, events: EventBuffer, lock: DeviceLock) -> Outcome:
        if self._warm.child is None:
            self._warm.start_to_stay(lock, batch)
        warm = self._warm.child
        if warm is not None and not (self._runner.suits(warm) and self._warm.take()):
            return Outcome([], again=True)
        return self._runner.generate(batch, events, lock, warm)

    def _record(self, batch: Batch, outcome: Outcome, seconds: float, copy: OutputCopy) -> None:
        """Writes the outcome into the ledger, for as long as that takes: the results are in this process only."""
        while True:
            try:
                copy.catch_up()  # first: when a run has ended, every door has its log
                self._settle(batch, outcome, seconds)
                break
            except LedgerUnavailable as error:
                logger.error("batch %s: %s", batch.batch_id, error)
                self.unkept = {run.run_id: error for run in batch.runs}
                self._changed()
                if self._requeues.wait(RETRY_SECONDS):
                    break  # the next server runs it again
        self.unkept = {}
        self._changed()

    def _settle(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        queue = self._ledger.queue
        if batch.batch_id in queue.batches(self.device.name, "open"):
            # Before the runs end: should this server be killed in between, the doubt is not lost.
            self._ledger.devices.settle(self.device.name, outcome)
        if outcome.again or _was_stopped(outcome.results):
            is_ours = queue.requeue(batch.batch_id)
        else:
            is_ours = queue.finish(batch.batch_id, outcome.results, seconds)
        if not is_ours:
            logger.warning("batch %s: its results came too late and count for nothing", batch.batch_id)


def _all_failed(batch: Batch, failure: Failure) -> Outcome:
    return Outcome([Result(run.run_id, failure=failure) for run in batch.runs])


def _failure(error: Exception) -> Failure:
    full = StorageFull.of(error)
    if full is not None:
        return Failure(full.code, str(full), full.next_step)
    sentence = f"The server could not run it: {type(error).__name__}: {error}."
    return Failure("internal_error", sentence, "Look at the server's log, and for permission in its state folder.")


def _was_stopped(results: Sequence[Result]) -> bool:
    return all(result.failure is not None and result.failure.code == "shutting_down" for result in results)
