"""DemoRunner: one batch in, one result per prompt out, through one child of the demo."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from demo_api.config import Settings
from demo_api.demo import command, home, run_folder
from demo_api.demo.progress import BatchProgress
from demo_api.demo.results import End, Timestamp, doubt, stopped
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.batch_runner import Listener
from demo_api.devices.lock import Device, DeviceLock, devices_of
from demo_api.devices.warm_child import MARK, LaunchSpec, WarmChild
from demo_api.errors import BadRequest
from demo_api.messages import Batch, Outcome, Request, Result, Run
from demo_api.process import tree as process_tree
from demo_api.process.child import Child, Ended
from demo_api.shapes import ModelHealth

logger = logging.getLogger(__name__)


class DemoRunner:
    """The demo engine. ``generate`` is called from one thread at a time; the other methods from any.

    Args:
        device: default: the first of the settings' devices.
    """

    name = "demo"

    def __init__(self, settings: Settings, device: Device | None = None) -> None:
        self._settings = settings
        self.device = device or devices_of(settings)[0]
        self.held: WarmChild | None = None
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._batch_id: str | None = None
        self._cancelled: tuple[str, str] | None = None

    def check(self) -> None:
        """Raises SetupError when the script, the interpreter or the model is missing, or the state cannot be kept."""
        home.script(self._settings)
        home.interpreter(self._settings)
        home.model_variable(self._settings)
        run_folder.check_state_folder(self._settings.state_dir)

    def accept(self, request: Request) -> None:
        """Raises BadRequest for a seed that the demo cannot take, and for what cannot fit into the model."""
        if request.seed is not None and not self._settings.is_cpu_demo:
            raise BadRequest(
                "The field 'seed' cannot be used: tt-metal's demo takes no seed.",
                next_step="Leave it out, or set 'temperature' to 0 for answers that repeat.",
                field="seed",
            )
        room = command.sequence_limit(self._settings, 1)
        if request.max_tokens >= room:
            raise BadRequest(
                f"The field 'max_tokens' is wrong: {request.max_tokens} leaves no room for the prompt in the "
                f"{room} tokens of this model.",
                next_step="Ask for fewer tokens, so that the prompt and the answer fit together.",
                field="max_tokens",
            )

    def demo(self) -> dict[str, str | None]:
        """The settings that choose the demo, its interpreter and its model."""
        return {name: value and str(value) for name, value in self._settings.model_dump(include=_DEMO_SETTINGS).items()}

    def choose(self, runs: Sequence[Run]) -> list[Run]:
        """Those that fit into the page cache of one child."""
        return command.choose(self._settings_of(runs[0]), runs)

    def describe(self) -> ModelHealth:
        """The model as it is set. It is never loaded here: every run loads it anew."""
        _, model = home.model_variable(self._settings)
        settings = {
            "max_seq_len": f"as the prompt needs, up to {command.sequence_limit(self._settings, 1)}",
            "paged_attention": not self._settings.is_cpu_demo,
            "temperature": command.DEFAULT_TEMPERATURE,
        }
        place = home.model_place(self._settings)
        return {"model": Path(model).name, "model_loaded": False, **place, "settings": settings}

    def end_lost(self, batch_ids: Collection[str]) -> str | None:
        """Ends what is left of batches whose server is gone or suspended: SIGINT first, so that the device is closed.

        Returns:
            a sentence, when the device may not have been closed.
        """
        left = process_tree.survivors(MARK, batch_ids)
        if not left:
            return None
        logger.warning("ending %d processes that a lost server left: %s", len(left), left)
        in_order = process_tree.end(left, grace=self._settings.stop_grace)
        return None if in_order else "What a lost server had left on the device did not leave at SIGINT."

    def clear_up(self) -> str | None:
        """Ends what killed runs left, and removes their prompts. To be called by the holder of the device.

        Returns:
            a sentence, when a child was cut off before it closed the device; otherwise None.
        """
        self.device.take_waiting()  # whose child is gone, or the device would not be the caller's
        folders = run_folder.existing(self._settings.runs_dir)
        cut_off = [folder for folder in folders if folder.is_cut_off(self.device.name)]
        doubt = self.end_lost({folder.path.name for folder in cut_off})
        for folder in cut_off:
            # The plugin removes the prompts when pytest has ended, and with it whatever opened the device.
            if folder.prompts.exists():
                doubt = doubt or f"The child of batch {folder.path.name} was killed together with its server."
            folder.forget_prompts()
        run_folder.tidy(folders, keep=self._settings.keep_runs, days=self._settings.keep_days)
        return doubt

    def start_warm_child(self, batch_id: str, hold: DeviceLock) -> None:
        """Starts a child that will wait for the batch of this id.

        Args:
            hold: the caller's hold of the device; the child inherits the lock.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the folder or the child could not be made.
        """
        settings = self._settings
        folder = RunFolder.create(settings.runs_dir, batch_id)
        try:
            # No prompts yet, but the file: as with any child, that it is still there tells that this one was killed.
            folder.write([], {**command.order(self.device.name), "waits": True, "prompts": str(folder.prompts)})
            way = self._way(settings, folder, {})
            self.device.note_waiting(batch_id)
            self.held = WarmChild(
                batch_id, self._spawn(way, folder, hold, waits=True), self.device, folder, way, settings
            )
        except BaseException:
            self.device.take_waiting()
            folder.remove()
            raise
        hold.hand_to_child()

    def end_warm_child(self) -> str | None:
        """Ends the child that waits, if one does.

        Returns:
            a sentence, when the device may not have been closed.
        """
        held, self.held = self.held, None
        if held is None:
            return None
        with self._lock:
            self._child = held.child  # for hurry()
        try:
            return held.let_go()
        finally:
            with self._lock:
                self._child = None

    def generate(self, batch: Batch, listener: Listener, hold: DeviceLock) -> Outcome:
        """Runs one batch in one child: in the one that was held for it, if there is one.

        Args:
            hold: the caller's hold of the device; the child inherits the lock.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the run's folder or the child could not be made.
        """
        settings = self._settings_of(batch.runs[0])
        with self._lock:
            self._batch_id = batch.batch_id
        try:
            if self.held is None:
                return self._run_cold(batch, settings, listener, hold)
            if not self._takes(self.held, settings):
                return Outcome([], suspect=self.end_warm_child(), again=True)
            return self._run_held(batch, settings, listener, self.held)
        except _Cancelled as cancelled:
            failure = stopped(settings, str(cancelled))
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs], suspect=self.end_warm_child())
        finally:
            with self._lock:
                self._batch_id = None

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, or keeps it from being started, with ``reason`` as its failure's code."""
        with self._lock:
            self._cancelled = (batch_id, reason)
            if self._child is not None and self._batch_id == batch_id:
                self._child.stop(reason)

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        with self._lock:
            if self._child is not None:
                self._child.hurry()

    def _settings_of(self, run: Run) -> Settings:
        """The settings with which this run was accepted, perhaps by another server."""
        accepted = {name: value for name, value in run.demo.items() if name in _DEMO_SETTINGS}
        paths = {name: Path(value) for name, value in accepted.items() if value and name != "hf_model"}
        return self._settings.model_copy(update={**accepted, **paths})

    def _takes(self, held: WarmChild, settings: Settings) -> bool:
        """Whether the child that waits was started as one would be started now, and is ours to tell."""
        return held.way == self._way(settings, held.folder, {}) and held.take()

    def _run_cold(self, batch: Batch, settings: Settings, listener: Listener, hold: DeviceLock) -> Outcome:
        folder = RunFolder.create(settings.runs_dir, batch.batch_id)
        progress = BatchProgress(batch, listener)
        try:
            folder.write(
                progress.prompts, {**command.order(self.device.name), **command.sampling_options(batch.request)}
            )
            way = self._way(settings, folder, command.options(settings, progress.requests, folder))
            with self._lock:  # cancel() either sees the child or keeps it from being started
                self._check_wanted(batch)
                self._child = child = self._spawn(way, folder, hold)
            hold.hand_to_child()
            ended = self._follow(child, progress, settings.run_timeout)
            return self._outcome(progress, ended, settings, folder, spawned=progress.begun)
        finally:
            folder.forget_prompts()

    def _run_held(self, batch: Batch, settings: Settings, listener: Listener, held: WarmChild) -> Outcome:
        progress, folder, child = BatchProgress(batch, listener), held.folder, held.child
        answers_in = _ANSWER_S if held.is_ready else max(_ANSWER_S, held.seconds_left)
        limit = threading.Timer(answers_in, progress.stop_unless_begun, (child,))
        try:
            folder.replace_prompts(progress.prompts)
            options = command.options(settings, progress.requests, folder)
            limit.start()
            with self._lock:
                self._check_wanted(batch)
                self.held, self._child = None, child
            child.tell(json.dumps({"options": options, **command.sampling_options(batch.request)}).encode() + b"\n")
            ahead = progress.begun.monotonic - held.spawned.monotonic
            ended = self._follow(child, progress, ahead + settings.run_timeout)
            # It may have begun between the decision to stop it and the signal.
            if ended.stopped == "not_begun" or (not progress.has_begun and ended.stopped in _OUR_OWN_AFFAIR):
                folder.remove()
                return Outcome([], suspect=doubt(ended), again=True)
            return self._outcome(progress, ended, settings, folder, spawned=held.spawned)
        finally:
            limit.cancel()
            folder.forget_prompts()

    def _follow(self, child: Child, progress: BatchProgress, timeout_s: float) -> Ended:
        try:
            return child.follow(timeout_s=timeout_s, max_output=self._settings.max_output, on_output=progress.hear)
        finally:
            with self._lock:
                self._child = None

    def _outcome(
        self, progress: BatchProgress, ended: Ended, settings: Settings, folder: RunFolder, *, spawned: Timestamp
    ) -> Outcome:
        reading = progress.reader.finish(ended.exit_code)
        model = reading.demo_model or Path(home.model_variable(settings)[1]).name
        end = End(settings, reading, ended, spawned, progress.begun, model, folder.path, progress.batch.claimed_at)
        results = [end.result(run, place) for place, run in enumerate(progress.batch.runs)]
        return Outcome(results, suspect=end.doubt(results[0]))

    def _way(self, settings: Settings, folder: RunFolder, options: Mapping[str, object]) -> LaunchSpec:
        """How a child with this folder is started."""
        argv = command.arguments(settings, folder, options)
        return LaunchSpec(argv, settings.demo_home, command.environment(settings, self.device.environment, folder))

    def _spawn(self, way: LaunchSpec, folder: RunFolder, hold: DeviceLock, *, waits: bool = False) -> Child:
        return Child(
            way.argv,
            cwd=way.cwd,
            env=way.environment,
            stdout=folder.stdout,
            stderr=folder.stderr,
            mark=(MARK, folder.path.name),
            pass_fds=() if hold.fd is None else (hold.fd,),
            grace=self._settings.stop_grace,
            waits=waits,
        )

    def _check_wanted(self, batch: Batch) -> None:
        if self._cancelled is not None and self._cancelled[0] == batch.batch_id:
            raise _Cancelled(self._cancelled[1])


_ANSWER_S = 10.0
"""A child that waits begins at once. If it does not, whatever is the matter with it is none of the run's business."""

_OUR_OWN_AFFAIR = (None, "timed_out", "output_too_large")
"""Why a child that was held can have ended before it began, without anybody wanting the run to end."""

_DEMO_SETTINGS = {"demo_home", "python", "llama_dir", "hf_model", "model_dir"}


class _Cancelled(Exception):
    """The batch was cancelled before its child was started."""
