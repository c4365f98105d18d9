"""What a child's end means: the doubt about its device, and the times."""

from __future__ import annotations

from pathlib import Path

from demo_api.config import Settings
from demo_api.demo.results import End, Timestamp, doubt
from demo_api.messages import Failure, Metrics, Request, Run
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
