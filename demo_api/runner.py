"""DemoRunner: one batch in, one result per prompt out, through one child of the demo."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from demo_api.config import Settings
from demo_api.config.values import DeviceSetting
from demo_api.demo import command, home, model_shape
from demo_api.demo.capabilities import check_requests
from demo_api.demo.command import LaunchSpec
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.model_shape import KeptModel, ModelShape
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
        self._warm: WarmChild | None = None  # where the child is one that can be told something
        self._batch_id: str | None = None
        self._cancelled: tuple[str, str] | None = None
        self._demo: ResolvedDemo | None = None  # what the runs were chosen by that are to be run now
        self._slowest_startup: float | None = None  # seconds, of the children that have run a batch

    def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
        """Those that one child can take, or the one that waits; the first always."""
        try:
            self._demo = home.resolve(self._settings)
        except SetupError:  # ``generate`` raises it where it can be a run's failure
            self._demo = None
        context_length = self._demo.context_length if self._demo else None
        return model_shape.choose(runs, context_length, warm.kept if warm else None)

    def start_warm(self, batch_id: str, lock: Lock, batch: Batch | None = None) -> WarmChild:
        """Starts a child that will wait for the batch of this id.

        Args:
            batch: the batch, where it is there already, and the child is to stay for others.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the folder or the child could not be made.
        """
        settings, keeps_model = self._settings, self._settings.warm_level == "model"
        folder = self._waiting_folder(batch_id, batch_id)
        try:
            demo = self._resolve() if batch else home.resolve(settings)
            spec = command.launch_spec(demo, self._device.environment, folder, {}, keeps_model=keeps_model)
            process = self._spawn(spec, folder, lock, waits=True)
            ready, ahead = self._ready_within(), batch is None
            child = WarmChild(batch_id, process, folder, demo, settings, ready, keeps_model=keeps_model, ahead=ahead)
        except BaseException:
            folder.remove()
            raise
        lock.hand_to_child()
        return child

    def suits(self, warm: WarmChild) -> bool:
        """Whether the child that waits was started as one would be started now."""
        return warm.demo == self._resolve()

    def prepare_next(self, warm: WarmChild, batch_id: str) -> None:
        """Lets a child that stays get ready for the batch of this id.

        Raises:
            OSError: the folder could not be made.
        """
        folder = self._waiting_folder(batch_id, warm.child_id)
        try:
            before = warm.folder
            warm.go_on(folder)
            before.forget_prompts()
        except BaseException:
            folder.remove()
            raise

    def generate(self, batch: Batch, listener: Listener, lock: Lock, warm: WarmChild | None = None) -> Outcome:
        """Runs one batch to its end.

        Args:
            warm: the child that waits for it; default: one is started. Afterwards it
                is the caller's to end, or where ``outcome.stays``, to be given another.

        Raises:
            SetupError: the demo home or the model is gone.
            BadRequest: this demo cannot do what another host's, or an earlier one, could.
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
                self._batch_id = self._warm = None
            self._demo = None

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, or keeps it from being started, with ``reason`` as its failure's code; returns at once."""
        with self._lock:
            self._cancelled = (batch_id, reason)
            if self._child is not None and self._batch_id == batch_id:
                self._child.stop(reason)

    def end_users(self, batch_id: str, users: Sequence[int]) -> None:
        """Asks the demo to take these users of the batch for done, whose runs were cancelled; returns at once.

        Only a child that was started before its batch can be asked. It goes on for the others.
        """
        with self._lock:
            if self._warm is not None and self._batch_id == batch_id:
                self._warm.end_users(list(users))

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        with self._lock:
            if self._child is not None:
                self._child.hurry()

    def _resolve(self) -> ResolvedDemo:
        """The demo of this host, for the whole of a batch as it was when the batch was chosen."""
        return self._demo or home.resolve(self._settings)

    def _waiting_folder(self, batch_id: str, child_id: str) -> RunFolder:
        folder = RunFolder.create(self._settings.runs_dir, batch_id)
        # No prompts yet, but the file: as with any child, that it is still there tells that this one was killed.
        config = {**command.plugin_config(self._device.name, child_id), "waits": True, "prompts": str(folder.prompts)}
        folder.write([], config)
        return folder

    def _run_cold(self, batch: Batch, listener: Listener, lock: Lock) -> Outcome:
        demo, request = self._resolve(), batch.runs[0].request
        check_requests(demo, [request])
        shape = model_shape.shape_of([run.request for run in batch.runs], demo.context_length)
        folder = RunFolder.create(self._settings.runs_dir, batch.batch_id)
        progress = BatchProgress(batch, shape.batch_size, listener)
        try:
            config = command.plugin_config(self._device.name, batch.batch_id)
            folder.write(progress.prompts, {**config, **command.sampling_options(demo, shape, request)})
            options = command.options(shape, request, folder)
            spec = command.launch_spec(demo, self._device.environment, folder, options)
            with self._lock:  # cancel() either sees the child or keeps it from being started
                self._check_wanted(batch)
                self._child = child = self._spawn(spec, folder, lock)
            lock.hand_to_child()
            ended = self._follow(child, progress)
            return self._outcome(demo, progress, ended, folder, spawned=progress.started)
        finally:
            folder.forget_prompts()

    def _run_warm(self, batch: Batch, listener: Listener, warm: WarmChild) -> Outcome:
        demo, request, folder = warm.demo, batch.runs[0].request, warm.folder
        shape = model_shape.shape_of([run.request for run in batch.runs], demo.context_length, warm.kept)
        progress = BatchProgress(batch, shape.batch_size, listener)
        starts_in = _START_SECONDS if warm.is_ready else max(_START_SECONDS, warm.seconds_left)
        limit = threading.Timer(starts_in, progress.stop_unless_started, (warm.child,))
        stays = False
        try:
            check_requests(demo, [request])
            folder.replace_prompts(progress.prompts)
            options = command.options(shape, request, folder)
            if warm.ahead:
                limit.start()
            with self._lock:
                self._check_wanted(batch)
                self._child, self._warm = warm.child, warm
            warm.send({"options": options, **command.sampling_options(demo, shape, request)})
            ended = self._follow(warm.child, progress, warm if warm.keeps_model else None)
            warm.state = "stays" if ended.stays else "ended"
            if warm.ahead and _did_not_start(ended, progress):
                suspect = doubt(ended, folder.path, was_open=warm.batches > 0)
                folder.remove()
                return Outcome([], suspect=suspect, again=True)
            outcome = self._outcome(
                demo, progress, ended, folder, spawned=warm.started, ahead=warm.ahead, demo_device=warm.demo_device
            )
            stays = ended.stays and self._note_batch(warm, shape, progress, outcome, ended)
            return replace(outcome, stays=stays)
        finally:
            limit.cancel()
            if not stays:  # otherwise the file tells that this child has the device, until it waits again
                folder.forget_prompts()

    def _note_batch(
        self, warm: WarmChild, shape: ModelShape, progress: BatchProgress, outcome: Outcome, ended: Ended
    ) -> bool:
        """Remembers what the child has now. Returns whether it may take another batch."""
        result, loaded = outcome.results[0], outcome.results[0].timing.warm != "model"
        seconds = ended.at - progress.started.monotonic
        warm.batches += 1
        warm.demo_device = result.device
        load = (result.timing.load_seconds or 0.0) if loaded or warm.kept is None else warm.kept.load_seconds
        if not warm.demo.is_cpu_demo:  # which keeps several
            warm.kept = KeptModel(shape, load, seconds)
        if warm.has_grown(loaded=loaded):
            logger.warning("device %s: the child that kept the model has grown too much", self._device.name)
            return False
        return True

    def _follow(self, child: Child, progress: BatchProgress, keeper: WarmChild | None = None) -> Ended:
        """Follows a child to the end of its batch.

        Args:
            keeper: the child, where it may stay after the batch.
        """
        users = list(range(len(progress.prompts)))
        try:
            ended = child.follow(
                timeout_s=self._settings.run_timeout,
                max_output=self._settings.max_output,
                on_output=progress.read,
                exit_code=lambda: progress.reader.exit_code if keeper else None,
                ask=(lambda: keeper.end_users(users)) if keeper else None,
            )
        finally:
            with self._lock:
                self._child = None
        child.forget()
        return ended

    def _outcome(
        self,
        demo: ResolvedDemo,
        progress: BatchProgress,
        ended: Ended,
        folder: RunFolder,
        *,
        spawned: Timestamp,
        ahead: bool = False,
        demo_device: str | None = None,
    ) -> Outcome:
        reading = progress.reader.finish(ended.exit_code)
        outcome = results_of(
            progress.batch,
            reading,
            ended,
            self._settings,
            spawned=spawned,
            started=progress.started,
            model=demo.model_name,
            folder=folder.path,
            ahead=ahead,
            demo_device=demo_device,
        )
        if outcome.results[0].failure is None:
            progress.complete_texts(reading.answers)
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


def _did_not_start(ended: Ended, progress: BatchProgress) -> bool:
    # It may have started between the decision to stop it and the signal.
    return ended.stopped == "not_started" or (not progress.test_started and ended.stopped in _NOT_THE_RUNS_FAULT)


class _Cancelled(Exception):
    """The batch was cancelled before its child was started."""
