"""What the end of a batch's child means for each of its runs, and for the device."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder
from demo_api.errors import SetupError, StorageFull
from demo_api.messages import Answer, Batch, Failure, Outcome, Result, Run, Timing
from demo_api.process.child import Ended
from demo_api.process.output import last_line
from demo_api.transcript import Reading, starts_with_stop_token

_NO_SPEED = "The demo gives no speed for a run of one decode iteration."
_PERHAPS_EMPTY = (
    "The answer begins with what marks the end of one: it may be empty, and what follows of no meaning; "
    "the demo's log does not tell."
)

_OF_ITERATIONS = ("timing.ttft_ms", "timing.decode_tokens_per_second")
_LOGGED = (
    *("load_seconds", "prefill_compile_seconds", "prefill_seconds", "decode_compile_seconds", "decode_seconds"),
    *("teardown_seconds", "ttft_ms", "decode_tokens_per_second"),
)
"""Figures of ``Timing`` that the demo's log gives, each by one sentence."""

_STARTED = '{"text": "demo_api_child: started'
"""The first that our plugin writes, as soon as pytest has loaded it; see ``demo_api_child.py``."""

_MOST_BEFORE = 256 * 1024
"""Bytes of stderr among which that record must be: before it an interpreter says little, if anything."""

_MOST_SHOWN = 300  # characters

_LEAST_FREE_BYTES = 64 * 1024
"""With fewer bytes left on its disk, what a child printed has probably not all been kept."""


@dataclass(frozen=True)
class Timestamp:
    """Now, when it is made: Unix seconds, and ``time.monotonic()`` seconds."""

    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)


def results_of(
    batch: Batch,
    reading: Reading,
    ended: Ended,
    settings: Settings,
    *,
    spawned: Timestamp,
    started: Timestamp,
    model: str,
    folder: Path,
    ahead: bool = False,
    demo_device: str | None = None,
) -> Outcome:
    """What the end of a batch's child means: a result for each run, and whether the device is in doubt.

    Args:
        reading: what the child printed.
        spawned: when the child began to get ready for the batch.
        started: when the batch started: ``spawned`` itself, or when a child that waited was given the batch.
        model: its name, as ``/health`` has it; the demo's own may be that of its base model.
        folder: where the child's output is.
        ahead: whether the child began before the batch came.
        demo_device: the device as the demo called it before, in the same child.
    """
    failure = _failure(reading, ended, settings, folder)
    timing = _timing(reading, ended, spawned, started, ahead)
    results = []
    for user, run in enumerate(batch.runs):
        answer = _answer(reading, user) if failure is None else None
        result = Result(
            run_id=run.run_id,
            answer=answer,
            failure=failure,
            timing=replace(timing, queue_seconds=_queue_seconds(run, started.monotonic - batch.claimed_at)),
            model=model,
            device=reading.demo_device or demo_device,
            finish_reason=_finish_reason(run, answer.tokens_generated) if answer else None,
            exit_code=ended.exit_code,
            log_folder=str(folder),
            note=_note(answer, reading, timing, demo_device) if answer else None,
        )
        results.append(result)
    # By what the child printed: the failure's code may be that of a full disk.
    crashed = ended.stopped is None and reading.error is not None and reading.error.code == "crashed"
    doubtful = f"A child crashed with exit code {ended.exit_code}." if crashed and pytest_started(folder) else None
    return Outcome(results, suspect=doubt(ended, folder) or doubtful)


def pytest_started(folder: Path) -> bool:
    """Whether a child's interpreter came as far as to run pytest, or may have; before that nobody opens a device."""
    try:
        return _STARTED in _head(RunFolder(folder).stderr) or _is_full(folder)
    except FileNotFoundError:  # somebody has removed it
        return True


def doubt(ended: Ended, folder: Path, *, was_open: bool = False) -> str | None:
    """Why a child's end may have left the device open; None when every process had its time to close it.

    Args:
        folder: where the child's output is.
        was_open: whether the child has certainly opened the device.
    """
    doubtful = None if ended.stays else _doubt(ended)
    return doubtful if doubtful and (was_open or pytest_started(folder)) else None


def _doubt(ended: Ended) -> str | None:
    if ended.survivors_killed:
        return f"{ended.survivors_killed} processes that a child had started outlived it and had to be ended."
    # Python ends so when nobody catches the interrupt: before anything was opened, or when it has closed what it had.
    # Whoever sent it: the child that waits is also interrupted by others that need its device.
    interrupted = ended.exit_code == -signal.SIGINT and set(ended.signals) <= {"SIGINT"}
    if not ended.clean and not interrupted:
        how = f"exit code {ended.exit_code}" + (f" after {', '.join(ended.signals)}" if ended.signals else "")
        return f"A child ended with {how}, so it may not have closed the device."
    return None


def stopped(settings: Settings, reason: str) -> Failure:
    """Why a batch was stopped that we stopped."""
    sentence = {
        "timed_out": f"The run took longer than {settings.run_timeout:g} s and was stopped.",
        "cancelled": "The run was cancelled.",
        "shutting_down": "The server is stopping; the run was interrupted.",
        "child_lost": "The batch was lost to another server.",
        "output_too_large": f"The child printed more than {settings.max_output} bytes and was stopped.",
    }[reason]
    return Failure(reason, sentence)


def _failure(reading: Reading, ended: Ended, settings: Settings, folder: Path) -> Failure | None:
    if ended.stopped is not None:
        return stopped(settings, ended.stopped)
    failure = None if _divided_by_zero_after_answer(reading) else reading.error
    killed = ended.exit_code < 0 and failure is not None and failure.code == "interrupted"
    if failure is not None and not killed and not pytest_started(folder):
        failure = _no_pytest(ended, folder)
    if failure is not None and _is_full(folder):
        sentence = f"The disk of the state folder is full, and the run failed: {failure.message}"
        return Failure(StorageFull.code, sentence, StorageFull.next_step)
    return failure


def _no_pytest(ended: Ended, folder: Path) -> Failure:
    run = RunFolder(folder)
    said = last_line(f"{_head(run.stdout)}\n{_head(run.stderr)}")[:_MOST_SHOWN].rstrip(".")
    sentence = f"The child's interpreter ended before pytest began (exit code {ended.exit_code}): {said}."
    return Failure(SetupError.code, sentence, "Run `demo-api doctor`, which checks the interpreter.")


def _head(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(_MOST_BEFORE).decode("utf-8", "replace")


def _is_full(folder: Path) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES


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


def _answer(reading: Reading, user: int) -> Answer:
    """The user's answer. Where its first token was the end, the demo went on, and what it printed is of no meaning."""
    answer = reading.answers[user]
    return replace(answer, response="", tokens_generated=0) if user in reading.ended_first else answer


def _note(answer: Answer, reading: Reading, timing: Timing, demo_device: str | None) -> str | None:
    """What the demo's log did not tell, though it does in every version that is known."""
    if starts_with_stop_token(answer.response):
        return _PERHAPS_EMPTY
    facts = {
        "device": reading.demo_device or demo_device,
        "prompt_tokens": answer.prompt_tokens,
        "tokens_generated": answer.tokens_generated,
        **{f"timing.{name}": getattr(timing, name) for name in _LOGGED},
    }
    one_iteration = reading.iterations == 1
    unknown = [name for name, fact in facts.items() if fact is None and not (one_iteration and name in _OF_ITERATIONS)]
    sentences = [_NO_SPEED] if one_iteration else []
    if unknown:
        sentences.append(f"The demo's log does not tell: {', '.join(unknown)}.")
    return " ".join(sentences) or None


def _finish_reason(run: Run, tokens: int | None) -> str | None:
    if tokens is None:
        return None
    return "length" if tokens >= run.request.max_tokens else "stop"


def _timing(reading: Reading, ended: Ended, spawned: Timestamp, started: Timestamp, ahead: bool) -> Timing:
    """Where the time of the whole batch went."""
    # The wall clock may be set while a child waits or works, so what it tells is held against the monotonic one.
    before, whole = started.monotonic - spawned.monotonic, ended.at - started.monotonic
    marks = [("startup", started.wall), *((phase.name, phase.at) for phase in reading.phases)]
    seconds = {
        f"{name}_seconds": _possible(after - begin, whole)
        for (name, begin), (_, after) in pairwise(marks)
        if begin is not None and after is not None
    }
    name, begin = marks[-1]
    if name == "output" and begin is not None:
        seconds["teardown_seconds"] = _possible(started.wall + whole - begin, whole)
    done_ahead = before if reading.waiting_at is None else min(reading.waiting_at - spawned.wall, before)
    return Timing(
        warm="model" if reading.model_was_kept else "imports" if ahead else "off",
        startup_ahead_seconds=round(done_ahead, 3) if ahead else 0.0,
        ttft_ms=reading.metrics.ttft_ms,
        # The 2026 demo prints 0 where it had nothing to measure.
        decode_tokens_per_second=reading.metrics.tokens_per_second_per_user or None,
        **seconds,
    )


def _possible(seconds: float, whole: float) -> float | None:
    """Rounded; None where the wall clock, by which the child's log tells the time, was set meanwhile."""
    return round(seconds, 3) if -0.01 < seconds < whole + 1 else None


def _queue_seconds(run: Run, since_claimed: float) -> float | None:
    return None if run.waited_seconds is None else round(run.waited_seconds + since_claimed, 3)
