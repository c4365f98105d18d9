"""The loop that owns one device: takes it, claims a batch, has the engine run it, finishes its runs."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from demo_api.config import Settings
from demo_api.devices import warm_child as held
from demo_api.devices.batch_monitor import BatchMonitor, EventBuffer
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import DeviceLock
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.warm_policy import WarmPolicy
from demo_api.errors import DemoApiError, LedgerUnavailable, StorageFull
from demo_api.messages import Batch, Failure, Outcome, Result
from demo_api.queue import Ledger, new_id

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""How often the ledger is looked at for runs that a server accepted which is gone now."""

BLOCKED_SECONDS = 0.1
"""How often a device is looked at that somebody else holds."""

RETRY_SECONDS = 1.0


class DeviceLoop:
    """One device's loop. ``turn`` is its body, and can be called without a thread.

    Args:
        changed: is called when the ledger was changed.
    """

    def __init__(self, ledger: Ledger, engine: BatchRunner, settings: Settings, changed: Callable[[], None]) -> None:
        self.engine = engine
        self.unkept: dict[str, LedgerUnavailable] = {}
        """Runs that have ended, by their ids, and why the ledger could not be told yet."""
        self._ledger = ledger
        self._settings = settings
        self._changed = changed
        self._name = engine.device.name
        self._rung = threading.Event()
        self._closed = False
        self._gives_back = threading.Event()
        self._blocked_since: float | None = None
        self._ahead = WarmPolicy(engine, settings)
        self._care = DeviceRecovery(ledger.devices, engine.device, settings)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._batch_id: str | None = None  # what runs

    def start(self) -> None:
        """Starts the thread, once."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name=f"device-{self._name}", daemon=True)
                self._thread.start()

    def ring(self) -> None:
        """A run was submitted: look at once."""
        self._ahead.asked()
        self._rung.set()

    def close(self) -> None:
        """Takes no further batch; the one that runs goes on. Returns at once."""
        with self._lock:
            self._closed = True
        self._rung.set()

    def give_back(self) -> None:
        """Stops the batch that runs, and puts its runs back into the line. Returns at once."""
        self._gives_back.set()
        with self._lock:
            if self._batch_id is not None:
                self.engine.cancel(self._batch_id, "shutting_down")
        self._care.stop()

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the thread's end. Returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def has_work(self) -> bool:
        """Whether a run waits, a batch was left on this device, or the device is to be reset."""
        line = self._ledger.queue
        return bool(
            line.describe()["waiting"]
            or line.batches(self._name, "open")
            or line.batches(self._name, "lost")
            or self._care.is_due()
        )

    def turn(self) -> bool:
        """One look at the device, and at most one batch.

        Returns:
            whether a batch was run, so that it is worth to look again at once.
        """
        if self.engine.held is not None and self._care.is_due():
            self._doubt(self.engine.end_warm_child())  # no run is to be told to it before the reset
        if self.engine.held is not None:  # it has the device, and what earlier servers left was seen to before it came
            with self.engine.device.share() as share:
                return self._claim(share)
        hold = self.engine.device.try_lock()
        if hold is None:
            self._blocked()
            return False
        with hold:
            if not self._recover_device(hold):
                return False
            self._blocked_since = None
            return self._care.make_fit(hold) and self._claim(hold)

    def start_warm_child(self) -> bool:
        """Starts a child that waits for the next batch, if that is due and the device is free and well."""
        hold = self.engine.device.try_lock() if self._ahead.is_due() and self._is_free() else None
        if hold is None:
            return False
        with hold:
            if not self._recover_device(hold) or not self._is_free():  # it may have found what puts the device in doubt
                return False
            try:
                self.engine.start_warm_child(new_id(), hold)
            except (DemoApiError, OSError) as error:
                logger.warning("device %s: no child could be started ahead: %s", self._name, error)
                self._ahead.failed()
                return False
        return True

    def _serve(self) -> None:
        while not self._closed:
            self._rung.clear()
            pause = IDLE_SECONDS
            try:
                self._doubt(self._ahead.tend())
                if self.has_work():
                    pause = 0.0 if self.turn() else BLOCKED_SECONDS
                else:
                    self._blocked_since = None  # of the next run, not of one that was cancelled or ended elsewhere
                    self.start_warm_child()
            except LedgerUnavailable as error:
                logger.warning("device %s: %s", self._name, error)
            except Exception as error:  # the loop must outlive whatever goes wrong, a full disk included
                logger.error("device %s: %s", self._name, error, exc_info=not isinstance(error, OSError))
            self._rung.wait(self._ahead.pause(pause))
        with suppress(LedgerUnavailable):
            self._doubt(self.engine.end_warm_child())

    def _is_free(self) -> bool:
        return self._ledger.devices.get(self._name).state == "free"

    def _doubt(self, doubt: str | None) -> None:
        if doubt:
            self._ledger.devices.suspect(self._name, doubt)

    def _claim(self, hold: DeviceLock) -> bool:
        batch_id = self.engine.held.batch_id if self.engine.held else None
        batch = self._ledger.queue.claim(self._name, self.engine.choose, batch_id)
        if batch is None:
            return False
        self._changed()
        self._run(batch, hold)
        return True

    def _recover_device(self, hold: DeviceLock) -> bool:
        """Sees to what earlier servers left on the device that we hold. False: one of them is still at it."""
        line = self._ledger.queue
        # Where the server's lock is ours, whoever had these batches is gone; otherwise it may be slow or suspended.
        line.recover(() if hold.others_serve else line.batches(self._name, "open"))
        if line.batches(self._name, "open"):
            return False
        self._doubt(self.engine.clear_up())
        line.forget_lost(self._name)
        return True

    def _blocked(self) -> None:
        """Sees to a child that holds the device although its server is gone or suspended: it is ours to end."""
        line, device = self._ledger.queue, self.engine.device
        open_now = line.batches(self._name, "open")  # looked for first: a server shares the lock before it claims
        line.recover(() if device.has_server() else open_now)
        lost = line.batches(self._name, "lost")
        if device.has_server() and not lost and not device.waiting():
            self._blocked_since = None
            return
        since = self._blocked_since = self._blocked_since or time.monotonic()
        if time.monotonic() - since >= self._settings.stop_grace:  # the kernel told it when its server died
            self._doubt(self.engine.end_lost(lost))
            # Its server would have told it long ago.
            self._doubt(held.let_go(device, grace=self._settings.stop_grace))
            if not device.has_server():
                self._care.end_lost()
        if time.monotonic() - since >= self._settings.run_timeout:
            self._give_up()

    def _give_up(self) -> None:
        batch = self._ledger.queue.claim(self._name, self.engine.choose)
        if batch is not None:
            seconds = self._settings.run_timeout
            sentence = f"Another process held the device for {seconds:g} s, so the run did not start."
            results = [Result(run.run_id, failure=Failure("timed_out", sentence)) for run in batch.runs]
            self._ledger.queue.finish(batch.batch_id, results, None)
            self._changed()

    def _run(self, batch: Batch, hold: DeviceLock) -> None:
        recorder, begun = EventBuffer(batch), time.monotonic()
        keeper = BatchMonitor(
            self._ledger.queue,
            batch,
            recorder,
            lease=self._settings.lease,
            cancel=lambda reason: self.engine.cancel(batch.batch_id, reason),
            changed=self._changed,
        )
        with self._lock:
            self._batch_id = batch.batch_id
        if self._gives_back.is_set():  # before this batch could be seen
            self.engine.cancel(batch.batch_id, "shutting_down")
        is_held = self.engine.held is not None
        with keeper:
            outcome = self._outcome(batch, recorder, hold)
        with self._lock:
            self._batch_id = None
        self._ahead.asked()
        if outcome.again:
            self._ahead.failed()
        elif is_held:
            self._ahead.was_used()
        self._keep_trying(batch, outcome, time.monotonic() - begun)
        self._ledger.history.tidy()

    def _outcome(self, batch: Batch, recorder: EventBuffer, hold: DeviceLock) -> Outcome:
        try:
            outcome = self.engine.generate(batch, recorder, hold)
        except DemoApiError as error:
            failure = Failure(error.code, str(error), error.next_step)
            outcome = self._not_run(batch, failure)
        except Exception as error:
            logger.error("batch %s: %s", batch.batch_id, error, exc_info=not isinstance(error, OSError))
            failure = _failure(error)
            outcome = self._not_run(batch, failure)
        for result in outcome.results:
            ending = result.failure.code if result.failure else "succeeded"
            logger.info("run %s: %s", result.run_id, ending, extra={"run_id": result.run_id})
        return outcome

    def _not_run(self, batch: Batch, failure: Failure) -> Outcome:
        # The child that was held for the batch has its id, and no other batch can have that.
        suspect = self.engine.end_warm_child()
        return Outcome([Result(run.run_id, failure=failure) for run in batch.runs], suspect=suspect)

    def _keep_trying(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        """Tells the ledger, for as long as it takes: the results are here only."""
        while True:
            try:
                self._settle(batch, outcome, seconds)
                break
            except LedgerUnavailable as error:
                logger.error("batch %s: %s", batch.batch_id, error)
                self.unkept = {run.run_id: error for run in batch.runs}
                self._changed()
                if self._gives_back.wait(RETRY_SECONDS):
                    break  # the next server runs it again
        self.unkept = {}
        self._changed()

    def _settle(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        line = self._ledger.queue
        if batch.batch_id in line.batches(self._name, "open"):
            # Before the runs end: should this server be killed in between, the doubt is not lost.
            self._ledger.devices.settle(self._name, outcome)
        if outcome.again or _was_stopped(outcome.results):
            mine = line.give_back(batch.batch_id)
        else:
            mine = line.finish(batch.batch_id, outcome.results, seconds)
        if not mine:
            logger.warning("batch %s: its results came too late and count for nothing", batch.batch_id)


def _failure(error: Exception) -> Failure:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = StorageFull(f"There is no room left on the disk of the state folder: {error.strerror}.")
        return Failure(full.code, str(full), full.next_step)
    sentence = f"The server could not run it: {type(error).__name__}: {error}."
    return Failure("internal_error", sentence, "Look at the server's log, and for permission in its state folder.")


def _was_stopped(results: Sequence[Result]) -> bool:
    return all(result.failure is not None and result.failure.code == "shutting_down" for result in results)
