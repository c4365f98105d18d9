"""DemoRunner: one batch in, one result per prompt out, through one child of the demo."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from demo_api import command, device, home, process_tree, run_folder
from demo_api.child import Child, Ended
from demo_api.config import Settings
from demo_api.errors import BadRequest, ShuttingDown
from demo_api.messages import Event, Failure, Listener, Request, Result, Run, Timing
from demo_api.run_folder import RunFolder
from demo_api.transcript import Reader, Reading

logger = logging.getLogger(__name__)


class DemoRunner:
    """The demo engine. ``generate`` is called from one thread at a time; the other methods from any."""

    name = "demo"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._stopped = threading.Event()

    def check(self) -> None:
        """Raises SetupError when the script, the interpreter or the model is missing, or the state cannot be kept."""
        home.script(self._settings)
        home.interpreter(self._settings)
        home.model_variable(self._settings)
        run_folder.check_state_folder(self._settings.state_dir)

    def device_is_taken(self) -> bool:
        """Whether a process of a run holds the device, whoever started it."""
        return device.is_taken(self._settings.state_dir / "device.lock")

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

    def describe(self) -> dict[str, object]:
        """The model as it is set. It is never loaded here: every run loads it anew."""
        variable, model = home.model_variable(self._settings)
        return {"model": Path(model).name, "model_loaded": False, variable.lower(): model}

    def generate(self, runs: list[Run], listener: Listener) -> list[Result]:
        """Runs one batch in one child.

        Args:
            runs: 1 to 32 runs with the same max_tokens, temperature, top_p and seed.

        Raises:
            SetupError: the demo home or the model is gone.
            ShuttingDown: ``stop`` was called before the child was started.
            OSError: the run's folder or the child could not be made.
        """
        settings = self._settings
        run_folder.check_state_folder(settings.state_dir)
        lock = settings.state_dir / "device.lock"
        try:
            with device.held(lock, wait_seconds=settings.run_timeout, given_up=self._stopped) as lock_fd:
                return self._run_in_folder(runs, lock_fd, listener)
        except device.DeviceBusy:
            if self._stopped.is_set():
                raise ShuttingDown("The server is stopping; the run was not started.") from None
            sentence = f"Another process held the device for {settings.run_timeout:g} s, so the run did not start."
            return [Result(run.run_id, failure=Failure("timed_out", sentence)) for run in runs]

    def stop(self, reason: str) -> None:
        """Ends the batch that runs, if any, with ``reason`` as its failure's code; further batches are refused."""
        self._stopped.set()
        with self._lock:
            if self._child is not None:
                self._child.stop(reason)

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        with self._lock:
            if self._child is not None:
                self._child.hurry()

    def _run_in_folder(self, runs: list[Run], lock_fd: int, listener: Listener) -> list[Result]:
        runs_path = self._settings.state_dir / "runs"
        earlier = run_folder.existing(runs_path)
        # A killed server's child is gone, or we would not hold the device; but not what that child may have started.
        cut_off = {folder.path.name for folder in earlier if folder.order.exists()}
        process_tree.end(process_tree.survivors("DEMO_API_RUN", cut_off))
        run_folder.tidy(earlier, keep=self._settings.keep_runs - 1, days=self._settings.keep_days)
        folder = RunFolder.create(runs_path, runs[0].run_id)
        try:
            return self._run_child(runs, folder, lock_fd, listener)
        finally:
            folder.forget_prompts()

    def _run_child(self, runs: list[Run], folder: RunFolder, lock_fd: int, listener: Listener) -> list[Result]:
        prompts = command.filled_up([run.request.prompt for run in runs])
        model = Path(home.model_variable(self._settings)[1]).name
        reader = Reader(prompts)

        def tell(event: Event) -> None:
            for run in runs:
                listener(run.run_id, event)

        def on_output(stream: str, chunk: bytes) -> None:
            for event in reader.feed("stdout" if stream == "stdout" else "stderr", chunk):
                tell(event)

        started = _Started()
        tell(Event("phase", started.wall, {"phase": "startup"}))
        child = self._spawn(runs, prompts, folder, lock_fd)
        try:
            ended = child.follow(
                timeout_s=self._settings.run_timeout, max_output=self._settings.max_output, on_output=on_output
            )
        finally:
            with self._lock:
                self._child = None
        if not ended.clean:
            logger.warning("run %s: its processes could not close the device; it may need a reset", runs[0].run_id)
        reading = reader.finish(ended.exit_code)
        outcome = _Outcome(reading, ended, started, reading.demo_model or model, folder.path, folder.readable_log())
        return [self._result(run, place, outcome) for place, run in enumerate(runs)]

    def _spawn(self, runs: list[Run], prompts: list[str], folder: RunFolder, lock_fd: int) -> Child:
        settings, request, run_id = self._settings, runs[0].request, runs[0].run_id
        folder.write(prompts, command.order(request))
        argv = command.arguments(settings, request, prompts, folder)
        environment = command.environment(settings, folder, run_id)
        with self._lock:  # stop() either sees the child or keeps it from being started
            if self._stopped.is_set():
                raise ShuttingDown("The server is stopping; the run was not started.")
            self._child = Child(
                argv,
                cwd=settings.demo_home,
                env=environment,
                stdout=folder.stdout,
                stderr=folder.stderr,
                mark=("DEMO_API_RUN", run_id),
                pass_fds=(lock_fd,),
                grace=settings.stop_grace,
            )
            return self._child

    def _result(self, run: Run, place: int, outcome: _Outcome) -> Result:
        reading = outcome.reading
        failure = self._failure(outcome)
        answer = reading.answers[place] if failure is None else None
        return Result(
            run_id=run.run_id,
            answer=answer,
            failure=failure,
            timing=_timing(run, outcome),
            model=outcome.model,
            device=reading.demo_device,
            finish_reason=_finish_reason(run, answer.tokens_generated) if answer else None,
            output=outcome.log,
            exit_code=outcome.ended.exit_code,
            log_folder=str(outcome.folder),
            note=_NO_SPEED if answer and reading.iterations == 1 else None,
        )

    def _failure(self, outcome: _Outcome) -> Failure | None:
        reason = outcome.ended.stopped
        if reason is not None:
            sentence = {
                "timed_out": f"The run took longer than {self._settings.run_timeout:g} s and was stopped.",
                "cancelled": "The run was cancelled.",
                "output_too_large": f"The child printed more than {self._settings.max_output} bytes and was stopped.",
            }[reason]
            return Failure(reason, sentence)
        return None if _divided_by_zero_after_answer(outcome.reading) else outcome.reading.error


_NO_SPEED = "The demo gives no speed for a run of one decode iteration."


@dataclass(frozen=True)
class _Started:
    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Outcome:
    reading: Reading
    ended: Ended
    started: _Started
    model: str
    folder: Path
    log: str


def _divided_by_zero_after_answer(reading: Reading) -> bool:
    """Whether the run failed only by the 2025 demo's arithmetic.

    It divides by (iterations - 1) for its speed, after it has logged every answer. So an answer that took one decode
    iteration, which are those of one or two tokens, is complete although the test fails.
    """
    error = reading.error
    return (
        error is not None
        and error.code == "demo_failed"
        and error.message.startswith("ZeroDivisionError")
        and reading.iterations == 1
        and reading.all_answered
    )


def _finish_reason(run: Run, tokens: int | None) -> str | None:
    if tokens is None:
        return None
    return "length" if tokens >= run.request.max_tokens else "stop"


def _timing(run: Run, outcome: _Outcome) -> Timing:
    started, metrics = outcome.started, outcome.reading.metrics
    marks = [("startup", started.wall), *((phase.name, phase.at) for phase in outcome.reading.phases)]
    seconds = {
        f"{name}_seconds": round(end - begin, 3)
        for (name, begin), (_, end) in pairwise(marks)
        if begin is not None and end is not None
    }
    name, begin = marks[-1]
    if name == "output" and begin is not None:
        seconds["teardown_seconds"] = round(started.wall + outcome.ended.seconds - begin, 3)
    return Timing(
        queue_seconds=round(started.monotonic - run.accepted_at, 3),
        ttft_ms=metrics.ttft_ms,
        # The 2026 demo prints 0 where it had nothing to measure.
        decode_tokens_per_second=metrics.tokens_per_second_per_user or None,
        **seconds,
    )
