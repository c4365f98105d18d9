"""DemoRunner: one batch in, one result per prompt out, through one child of the demo."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from demo_api import command, home, process_tree, run_folder
from demo_api.child import Child
from demo_api.child_end import End, Started, stopped
from demo_api.config import Settings
from demo_api.device import Device, Hold
from demo_api.engine import Listener
from demo_api.errors import BadRequest
from demo_api.messages import Batch, Event, Outcome, Request, Result, Run
from demo_api.run_folder import RunFolder
from demo_api.shapes import ModelHealth
from demo_api.transcript import Reader

logger = logging.getLogger(__name__)


class DemoRunner:
    """The demo engine. ``generate`` is called from one thread at a time; the other methods from any.

    Args:
        device: default: the first of the settings' devices.
    """

    name = "demo"

    def __init__(self, settings: Settings, device: Device | None = None) -> None:
        self._settings = settings
        self.device = device or settings.device_list[0]
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
        left = process_tree.survivors("DEMO_API_RUN", batch_ids)
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
        folders = run_folder.existing(self._settings.state_dir / "runs")
        cut_off = [folder for folder in folders if folder.is_cut_off(self.device.name)]
        doubt = self.end_lost({folder.path.name for folder in cut_off})
        for folder in cut_off:
            # The plugin removes the prompts when pytest has ended, and with it whatever opened the device.
            if folder.prompts.exists():
                doubt = doubt or f"The child of batch {folder.path.name} was killed together with its server."
            folder.forget_prompts()
        run_folder.tidy(folders, keep=self._settings.keep_runs, days=self._settings.keep_days)
        return doubt

    def generate(self, batch: Batch, listener: Listener, hold: Hold) -> Outcome:
        """Runs one batch in one child.

        Args:
            hold: the caller's hold of the device; the child inherits the lock.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the run's folder or the child could not be made.
        """
        settings = self._settings_of(batch.runs[0])
        with self._lock:
            self._batch_id = batch.batch_id
        folder = RunFolder.create(settings.state_dir / "runs", batch.batch_id)
        try:
            return self._run_child(batch, settings, folder, listener, hold)
        except _Cancelled as cancelled:
            failure = stopped(settings, str(cancelled))
            return Outcome([Result(run.run_id, failure=failure) for run in batch.runs])
        finally:
            with self._lock:
                self._batch_id = None
            folder.forget_prompts()

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

    def _run_child(
        self, batch: Batch, settings: Settings, folder: RunFolder, listener: Listener, hold: Hold
    ) -> Outcome:
        runs = batch.runs
        prompts = command.filled_up([run.request.prompt for run in runs])
        model = Path(home.model_variable(settings)[1]).name
        reader = Reader(prompts)

        def tell(event: Event) -> None:
            user = event.data.get("user")  # only its own run may see a user's text; the surplus users are nobody's
            for run in runs if user is None else runs[user : user + 1] if isinstance(user, int) else ():
                listener(run.run_id, event)

        def on_output(stream: str, chunk: bytes) -> None:
            for event in reader.feed("stdout" if stream == "stdout" else "stderr", chunk):
                tell(event)

        started = Started()
        tell(Event("phase", started.wall, {"phase": "startup"}))
        child = self._spawn(batch, settings, prompts, folder, hold)
        try:
            hold.leave_to_child()
            ended = child.follow(timeout_s=settings.run_timeout, max_output=settings.max_output, on_output=on_output)
        finally:
            with self._lock:
                self._child = None
        reading = reader.finish(ended.exit_code)
        end = End(settings, reading, ended, started, reading.demo_model or model, folder.path, batch.claimed_at)
        results = [end.result(run, place) for place, run in enumerate(runs)]
        return Outcome(results, suspect=end.doubt(results[0]))

    def _spawn(self, batch: Batch, settings: Settings, prompts: list[str], folder: RunFolder, hold: Hold) -> Child:
        folder.write(prompts, command.order(batch.request, self.device.name))
        argv = command.arguments(settings, [run.request for run in batch.runs], folder)
        environment = command.environment(settings, self.device.environment, folder, batch.batch_id)
        with self._lock:  # cancel() either sees the child or keeps it from being started
            if self._cancelled is not None and self._cancelled[0] == batch.batch_id:
                raise _Cancelled(self._cancelled[1])
            self._child = Child(
                argv,
                cwd=settings.demo_home,
                env=environment,
                stdout=folder.stdout,
                stderr=folder.stderr,
                mark=("DEMO_API_RUN", batch.batch_id),
                pass_fds=() if hold.fd is None else (hold.fd,),
                grace=settings.stop_grace,
            )
            return self._child


_DEMO_SETTINGS = {"demo_home", "python", "llama_dir", "hf_model", "model_dir"}


class _Cancelled(Exception):
    """The batch was cancelled before its child was started."""
