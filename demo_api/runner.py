"""DemoRunner: one batch in, one result per prompt out, through one child of the demo."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from demo_api.config import DeviceSetting, Settings
from demo_api.demo import command, home
from demo_api.demo.command import LaunchSpec
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.progress import BatchProgress, Listener
from demo_api.demo.results import Timestamp, doubt, results_of, stopped
from demo_api.demo.run_folder import RunFolder
from demo_api.demo.warm_child import WarmChild
from demo_api.errors import SetupError
from demo_api.messages import Batch, Outcome, Result, Run
from demo_api.process.child import Child, Ended

logger = logging.getLogger(__name__)

_START_SECONDS = 10.0
"""A warm child starts its batch at once. If it does not, its run must not suffer for whatever is the matter with it."""

_NOT_THE_RUNS_FAULT = (None, "timed_out", "output_too_large")
"""Why a warm child can have ended before its batch started, without anybody wanting the run to end."""


class Lock(Protocol):
    """The device's lock, taken by the caller.

    Attributes:
        fd: the descriptor that a child inherits; None where the child has it already.
    """

    fd: int | None

    def hand_to_child(self) -> None:
        """Called when a child has inherited the descriptor."""


class DemoRunner:
    """Runs batches on one device. ``cancel`` and ``hurry`` may be called from any thread, the others from one.

    Args:
        device: default: the first of the settings' devices.
    """

    def __init__(self, settings: Settings, device: DeviceSetting | None = None) -> None:
        self._settings = settings
        self._device = device or settings.devices[0]
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._batch_id: str | None = None
        self._cancelled: tuple[str, str] | None = None
        self._slowest_startup: float | None = None  # seconds, of the children that have run a batch

    def choose(self, runs: Sequence[Run]) -> list[Run]:
        """Those that fit into the page cache of one child; the first always."""
        try:
            context_length = self._resolve(runs[0]).context_length
        except SetupError:  # ``generate`` raises it where it can be a run's failure
            context_length = None
        return command.choose(context_length, runs)

    def start_ahead(self, batch_id: str, lock: Lock) -> WarmChild:
        """Starts a child that will wait for the batch of this id.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the folder or the child could not be made.
        """
        settings = self._settings
        folder = RunFolder.create(settings.runs_dir, batch_id)
        try:
            # No prompts yet, but the file: as with any child, that it is still there tells that this one was killed.
            config = {**command.plugin_config(self._device.name), "waits": True, "prompts": str(folder.prompts)}
            folder.write([], config)
            spec = command.launch_spec(home.resolve(settings), self._device.environment, folder, {})
            child = WarmChild(
                batch_id, self._spawn(spec, folder, lock, waits=True), folder, spec, settings, self._ready_within()
            )
        except BaseException:
            folder.remove()
            raise
        lock.hand_to_child()
        return child

    def suits(self, warm: WarmChild, batch: Batch) -> bool:
        """Whether the child that waits was started as one would be started now for this batch."""
        demo = self._resolve(batch.runs[0])
        return warm.spec == command.launch_spec(demo, self._device.environment, warm.folder, {})

    def generate(self, batch: Batch, listener: Listener, lock: Lock, warm: WarmChild | None = None) -> Outcome:
        """Runs one batch to its end.

        Args:
            warm: the child that waits for it; default: one is started. Where ``warm.is_used`` is false afterwards, it
                still waits, and the caller ends it.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the batch's folder or the child could not be made.
        """
        with self._lock:
            self._batch_id = batch.batch_id
        try:
            if warm is None:
                return self._run_cold(batch, listener, lock)
            return self._run_warm(batch, listener, warm)
        except _Cancelled as cancelled:
            failure = stopped(self._settings, str(cancelled))
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs])
        finally:
            with self._lock:
                self._batch_id = None

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, or keeps it from being started, with ``reason`` as its failure's code; returns at once."""
        with self._lock:
            self._cancelled = (batch_id, reason)
            if self._child is not None and self._batch_id == batch_id:
                self._child.stop(reason)

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        with self._lock:
            if self._child is not None:
                self._child.hurry()

    def _resolve(self, run: Run) -> ResolvedDemo:
        """The demo that this run was accepted for, perhaps by another server."""
        return home.resolve(home.with_selection(self._settings, run.demo))

    def _run_cold(self, batch: Batch, listener: Listener, lock: Lock) -> Outcome:
        demo = self._resolve(batch.runs[0])
        folder = RunFolder.create(self._settings.runs_dir, batch.batch_id)
        progress = BatchProgress(batch, listener)
        try:
            sampling = command.sampling_options(demo, progress.requests)
            folder.write(progress.prompts, {**command.plugin_config(self._device.name), **sampling})
            options = command.options(demo, progress.requests, folder)
            spec = command.launch_spec(demo, self._device.environment, folder, options)
            with self._lock:  # cancel() either sees the child or keeps it from being started
                self._check_wanted(batch)
                self._child = child = self._spawn(spec, folder, lock)
            lock.hand_to_child()
            ended = self._follow(child, progress, self._settings.run_timeout)
            return self._outcome(demo, progress, ended, folder, spawned=progress.started)
        finally:
            folder.forget_prompts()

    def _run_warm(self, batch: Batch, listener: Listener, warm: WarmChild) -> Outcome:
        demo = self._resolve(batch.runs[0])
        progress, folder = BatchProgress(batch, listener), warm.folder
        starts_in = _START_SECONDS if warm.is_ready else max(_START_SECONDS, warm.seconds_left)
        limit = threading.Timer(starts_in, progress.stop_unless_started, (warm.child,))
        try:
            folder.replace_prompts(progress.prompts)
            options = command.options(demo, progress.requests, folder)
            limit.start()
            with self._lock:
                self._check_wanted(batch)
                self._child = warm.child
            warm.send({"options": options, **command.sampling_options(demo, progress.requests)})
            ahead = progress.started.monotonic - warm.spawned.monotonic
            ended = self._follow(warm.child, progress, ahead + self._settings.run_timeout)
            # It may have started between the decision to stop it and the signal.
            if ended.stopped == "not_started" or (not progress.test_started and ended.stopped in _NOT_THE_RUNS_FAULT):
                suspect = doubt(ended, folder.path)
                folder.remove()
                return Outcome([], suspect=suspect, again=True)
            return self._outcome(demo, progress, ended, folder, spawned=warm.spawned)
        finally:
            limit.cancel()
            folder.forget_prompts()

    def _follow(self, child: Child, progress: BatchProgress, timeout_s: float) -> Ended:
        try:
            return child.follow(timeout_s=timeout_s, max_output=self._settings.max_output, on_output=progress.read)
        finally:
            with self._lock:
                self._child = None

    def _outcome(
        self, demo: ResolvedDemo, progress: BatchProgress, ended: Ended, folder: RunFolder, *, spawned: Timestamp
    ) -> Outcome:
        outcome = results_of(
            progress.batch,
            progress.reader.finish(ended.exit_code),
            ended,
            self._settings,
            spawned=spawned,
            started=progress.started,
            model=demo.model_name,
            folder=folder.path,
        )
        timing = outcome.results[0].timing
        if timing.startup_seconds is not None:
            startup = timing.startup_seconds + (timing.startup_ahead_seconds or 0.0)
            self._slowest_startup = max(startup, self._slowest_startup or 0.0)
        return outcome

    def _ready_within(self) -> float:
        """Seconds that a child may take to get ready: a run that waits for it would sooner have one of its own."""
        limit = self._settings.run_timeout / 2
        return limit if self._slowest_startup is None else min(limit, 2 * self._slowest_startup + _START_SECONDS)

    def _spawn(self, spec: LaunchSpec, folder: RunFolder, lock: Lock, *, waits: bool = False) -> Child:
        return Child(
            spec.argv,
            cwd=spec.cwd,
            env=spec.environment,
            stdout=folder.stdout,
            stderr=folder.stderr,
            mark=(command.MARK, folder.path.name),
            pass_fds=() if lock.fd is None else (lock.fd,),
            grace=self._settings.stop_grace,
            waits=waits,
        )

    def _check_wanted(self, batch: Batch) -> None:
        if self._cancelled is not None and self._cancelled[0] == batch.batch_id:
            raise _Cancelled(self._cancelled[1])


class _Cancelled(Exception):
    """The batch was cancelled before its child was started."""
