"""What the end of a batch's child means for each of its runs, and for the device."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from demo_api.config import Settings
from demo_api.errors import StorageFull
from demo_api.messages import Failure, Result, Run, Timing
from demo_api.process.child import Ended
from demo_api.transcript import Reading

_NO_SPEED = "The demo gives no speed for a run of one decode iteration."

_ROOM = 64 * 1024
"""With fewer bytes left on its disk, what a child printed has probably not all been kept."""


@dataclass(frozen=True)
class Timestamp:
    """Now, when it is made: Unix seconds, and ``time.monotonic()`` seconds."""

    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class End:
    """All that is known when a batch's child has ended.

    Attributes:
        spawned: when the child was.
        begun: when its time began to be the batch's: when it was spawned, or told what to do, if it was held for that.
        model: as the demo calls it, or as it is set.
        folder: the batch's.
        claimed_at: when the batch was claimed, ``time.monotonic()`` seconds.
    """

    settings: Settings
    reading: Reading
    ended: Ended
    spawned: Timestamp
    begun: Timestamp
    model: str
    folder: Path
    claimed_at: float

    def result(self, run: Run, place: int) -> Result:
        """The result of the run at this place of the batch."""
        failure = self._failure()
        answer = self.reading.answers[place] if failure is None else None
        return Result(
            run_id=run.run_id,
            answer=answer,
            failure=failure,
            timing=self._timing(run),
            model=self.model,
            device=self.reading.demo_device,
            finish_reason=_finish_reason(run, answer.tokens_generated) if answer else None,
            exit_code=self.ended.exit_code,
            log_folder=str(self.folder),
            note=_NO_SPEED if answer and self.reading.iterations == 1 else None,
        )

    def doubt(self, result: Result) -> str | None:
        """Why the device may not have been closed; None when every process had its time for that."""
        crashed = result.failure is not None and result.failure.code == "crashed"
        return doubt(self.ended) or (f"A child crashed with exit code {self.ended.exit_code}." if crashed else None)

    def _failure(self) -> Failure | None:
        if self.ended.stopped is not None:
            return stopped(self.settings, self.ended.stopped)
        failure = None if _divided_by_zero_after_answer(self.reading) else self.reading.error
        if failure is not None and _is_full(self.folder):
            sentence = f"The disk of the state folder is full, and the run failed: {failure.message}"
            return Failure(StorageFull.code, sentence, StorageFull.next_step)
        return failure

    def _timing(self, run: Run) -> Timing:
        spawned, begun, metrics = self.spawned, self.begun, self.reading.metrics
        marks = [("startup", begun.wall), *((phase.name, phase.at) for phase in self.reading.phases)]
        seconds = {
            f"{name}_seconds": round(after - begin, 3)
            for (name, begin), (_, after) in pairwise(marks)
            if begin is not None and after is not None
        }
        # The wall clock may be set while a child waits: what lies before is not measured by it.
        before = begun.monotonic - spawned.monotonic
        name, begin = marks[-1]
        if name == "output" and begin is not None:
            seconds["teardown_seconds"] = round(begun.wall + self.ended.seconds - before - begin, 3)
        waited = None if run.waited_seconds is None else run.waited_seconds + begun.monotonic - self.claimed_at
        waiting_at = self.reading.waiting_at
        ahead = before if waiting_at is None else min(waiting_at - spawned.wall, before)
        return Timing(
            warm="off" if begun is spawned else "imports",
            startup_ahead_seconds=round(ahead, 3),
            queue_seconds=waited and round(waited, 3),
            ttft_ms=metrics.ttft_ms,
            # The 2026 demo prints 0 where it had nothing to measure.
            decode_tokens_per_second=metrics.tokens_per_second_per_user or None,
            **seconds,
        )


def doubt(ended: Ended) -> str | None:
    """Why a child's end may have left the device open; None when every process had its time to close it."""
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
        "shutting_down": "The server is stopping; the run was broken off.",
        "child_lost": "The batch was lost to another server.",
        "output_too_large": f"The child printed more than {settings.max_output} bytes and was stopped.",
    }[reason]
    return Failure(reason, sentence)


def _is_full(folder: Path) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ROOM


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
