"""Runs the demo for a command that needs no server: takes the device once, and starts as few children as fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from demo_api.config import Settings
from demo_api.demo.capabilities import Capabilities
from demo_api.demo.progress import Listener
from demo_api.devices.lock import DeviceBusy, DeviceLock, devices_of
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.warm import end_waiting_child
from demo_api.errors import DeviceFailed, RunFailed, SetupError, ShuttingDown, StorageFull
from demo_api.messages import Batch, Request, Run
from demo_api.queue import DeviceStates, Ledger, new_id
from demo_api.runner import DemoRunner


class LocalRun:
    """The demo, run by its caller. ``stop`` and ``hurry`` may be called from any thread, the others from one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device = devices_of(settings)[0]
        self._demo = Capabilities(settings)
        self._runner = DemoRunner(settings)
        self._lock = threading.Lock()
        self._batch_id: str | None = None
        self._reason: str | None = None
        self._given_up = threading.Event()

    def prepare(self, requests: Sequence[Request]) -> list[Run]:
        """Makes runs of requests that are alike in all but their prompts. Nothing is started.

        Raises:
            BadRequest: the demo cannot do one of them.
            SetupError: the script, the interpreter, the model or the state folder is missing.
        """
        self._demo.accept(requests)
        now = time.time()
        return [Run(new_id(), request, accepted_at=now, waited_seconds=0.0) for request in requests]

    def run(self, runs: Sequence[Run], on_event: Listener, *, refuse_failed: bool = False) -> Iterator[Run]:
        """Runs them, and yields each when its child has ended, with ``result`` and ``time_seconds``.

        The device is taken from before the first child until after the last one, or until the iterator is closed.

        Args:
            on_event: gets each event with the id of its run, on this thread.
            refuse_failed: whether a device that a reset did not help is left alone, as the server does.

        Raises:
            RunFailed: another process held the device for all of ``run_timeout``, or until ``stop("timed_out")``.
            DeviceFailed: see ``refuse_failed``.
            ShuttingDown: stopped before the device was free.
            LedgerUnavailable, StorageFull, SetupError: what the runs need on this machine is not there.
        """
        started, waiting = time.monotonic(), list(runs)
        devices, name = Ledger(self._settings).devices, self._device.name
        state = devices.get(name)
        if refuse_failed and state.state == "failed":
            raise DeviceFailed(f"The device {name} has failed: {state.reason}")
        try:
            with self._take_device(devices) as lock:
                doubt = DeviceRecovery(devices, self._device, self._settings).clear_up()
                if doubt:
                    devices.suspect(name, doubt)
                while waiting:
                    chosen = self._runner.choose(waiting[: self._settings.max_batch])
                    waiting = [run for run in waiting if run not in chosen]
                    batch = Batch(new_id(), chosen, claimed_at=started)
                    self._start(batch.batch_id)
                    outcome = self._runner.generate(batch, on_event, lock)
                    devices.settle(name, outcome)
                    seconds = time.monotonic() - started
                    for run, result in zip(chosen, outcome.results, strict=True):
                        yield replace(run, result=result, time_seconds=seconds)
        except OSError as error:
            reason = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
            raise StorageFull.of(error) or SetupError(
                f"The run could not be started: {reason}.",
                next_step="Look for permission in the state folder (--state-dir).",
            ) from None

    def stop(self, reason: str = "cancelled") -> None:
        """Ends the child in order, and keeps others from being started; ``reason`` becomes their failures' code."""
        with self._lock:
            self._reason = self._reason or reason
            if self._batch_id is not None:
                self._runner.cancel(self._batch_id, self._reason)
        self._given_up.set()

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        self._runner.hurry()

    def _start(self, batch_id: str) -> None:
        with self._lock:  # stop() either sees the batch or is seen here
            self._batch_id = batch_id
            if self._reason is not None:
                self._runner.cancel(batch_id, self._reason)

    def _take_device(self, devices: DeviceStates) -> DeviceLock:
        started, device = time.monotonic(), self._device

        def make_way() -> None:  # again and again: a server may start the next one whenever a run of its own has ended
            doubt = end_waiting_child(device, grace=self._settings.stop_grace)
            if doubt:
                devices.suspect(device.name, doubt)

        try:
            return device.wait_for_lock(seconds=self._settings.run_timeout, given_up=self._given_up, make_way=make_way)
        except DeviceBusy:
            if self._reason == "cancelled":
                raise ShuttingDown("The run was not started.") from None
            seconds = round(time.monotonic() - started, 1)
            sentence = f"Another process held the device for {seconds:g} s, so the run did not start."
            raise RunFailed(sentence, code="timed_out") from None
