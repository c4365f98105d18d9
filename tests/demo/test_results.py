"""What a child's end means: the doubt about its device, and the times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from demo_api.config import Settings
from demo_api.demo.results import End, Timestamp, doubt
from demo_api.messages import Answer, Failure, Metrics, Request, Run
from demo_api.process.child import Ended
from demo_api.transcript import Reading
from demo_api.transcript.demo_log import Phase


def test_an_interrupt_that_nobody_caught_leaves_no_doubt_whoever_sent_it() -> None:
    # Others that need the device interrupt a child that waits, perhaps before it has come to the plugin.
    assert doubt(Ended(-2, 1.0, None, (), 0)) is None
    assert doubt(Ended(-2, 1.0, "let_go", ("SIGINT",), 0)) is None
    assert doubt(Ended(-2, 1.0, "let_go", ("SIGINT", "SIGTERM"), 0)) is not None
    assert doubt(Ended(-9, 1.0, None, (), 0)) is not None


def test_a_clock_that_was_set_while_the_child_waited_changes_no_time(tmp_path: Path) -> None:
    spawned, told = Timestamp(wall=1000.0, monotonic=50.0), Timestamp(wall=5000.0, monotonic=60.0)
    phases = [Phase("load", 5001.0), Phase("output", 5002.0)]
    failure = Failure("demo_failed", "It failed.")
    reading = Reading("failed", failure, [], Metrics(), phases, 1003.0, None, None, 0, all_answered=False)
    ended = Ended(1, 13.0, None, (), 0)
    end = End(Settings.load(), reading, ended, spawned, told, "model", tmp_path, claimed_at=60.0)
    run = Run("run", Request.model_validate({"prompt": "Hello"}), {}, accepted_at=1.0, waited_seconds=0.0)
    timing = end.result(run, 0).timing
    assert timing is not None
    assert (timing.startup_ahead_seconds, timing.startup_seconds, timing.teardown_seconds) == (3.0, 1.0, 1.0)


def end(reading: Reading, folder: Path) -> End:
    now = Timestamp()
    return End(Settings.load(), reading, Ended(1, 1.0, None, (), 0), now, now, "model", folder, now.monotonic)


DIVIDED = Failure("demo_failed", "ZeroDivisionError: float division by zero.")
ANSWERED = Reading(
    "failed", DIVIDED, [Answer("Hi", 2)], Metrics(), [], None, None, None, iterations=1, all_answered=True
)
NO_EXCUSE = {
    "two iterations": {"iterations": 2},
    "no iteration": {"iterations": 0},
    "no answer to another": {"all_answered": False},
    "another error": {"error": Failure("demo_failed", "AssertionError: 1 == 2.")},
    "a crash": {"error": Failure("crashed", "ZeroDivisionError: float division by zero.")},
}


def test_the_2025_demos_division_by_zero_after_one_iteration_is_forgiven(tmp_path: Path) -> None:
    run = Run("run", Request.model_validate({"prompt": "Hello"}))
    result = end(ANSWERED, tmp_path).result(run, 0)
    assert (result.answer, result.failure) == (Answer("Hi", 2), None)


@pytest.mark.parametrize("different", NO_EXCUSE.values(), ids=NO_EXCUSE)
def test_nothing_else_is_forgiven(tmp_path: Path, different: dict[str, object]) -> None:
    reading = replace(ANSWERED, **different)  # type: ignore[arg-type]
    result = end(reading, tmp_path).result(Run("run", Request.model_validate({"prompt": "Hello"})), 0)
    assert (result.answer, result.failure) == (None, reading.error)
