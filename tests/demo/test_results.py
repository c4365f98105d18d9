"""demo_api.demo.results: what a child's end means for each run of its batch, and for the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo_api.config import Settings
from demo_api.demo.results import Timestamp, results_of
from demo_api.messages import Answer, Batch, Failure, Metrics, Outcome, Result, Run, Timing
from demo_api.process.child import Ended
from demo_api.transcript import Phase, Reading, parse
from demo_api.web.parse import check_request

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
MAX_TOKENS = 8
CLAIMED = Timestamp(wall=1000.0, monotonic=50.0)
"""When the batch was claimed. A cold child is spawned two seconds later, and ends ten seconds after that."""
SPAWNED = Timestamp(wall=1002.0, monotonic=52.0)
ENDED = Ended(exit_code=0, at=62.0, stopped=None)
DIVIDED = "ZeroDivisionError: division by zero."


def said(
    *answers: Answer,
    error: Failure | None = None,
    iterations: int = 5,
    phases: list[Phase] | None = None,
    waiting_at: float | None = None,
    metrics: Metrics | None = None,
    model: str | None = None,
    device: str | None = "N150",
    ended_first: frozenset[int] = frozenset(),
    model_was_kept: bool = False,
    asked: int = 1,
) -> Reading:
    """What a child printed: by default one answer."""
    given = [*answers] or [Answer("Four.", 3, 12)]
    return Reading(
        status="failed" if error else "succeeded",
        error=error,
        answers=given,
        ended_first=ended_first,
        metrics=metrics or Metrics(),
        phases=phases or [],
        waiting_at=waiting_at,
        model_was_kept=model_was_kept,
        demo_device=device,
        demo_model=model,
        iterations=iterations,
        all_answered=len(given) >= asked,
    )


def phases(*marks: tuple[str, float | None]) -> list[Phase]:
    return [Phase(name, at) for name, at in marks]


ALL_PHASES = phases(
    ("load", 1003.0),
    ("prefill_compile", 1004.5),
    ("prefill", 1005.0),
    ("decode_compile", 1005.25),
    ("decode", 1006.0),
    ("output", 1009.0),
)
ALL: dict[str, Any] = {"phases": ALL_PHASES, "metrics": Metrics(ttft_ms=91.5, tokens_per_second_per_user=64.3)}
"""What a log tells in which nothing is missing."""


def run(number: int = 0, waited_seconds: float | None = 1.5) -> Run:
    request = check_request({"prompt": "What is 2+2?", "max_tokens": MAX_TOKENS})
    return Run(f"run-{number}", request, waited_seconds=waited_seconds)


Settle = Callable[..., Outcome]


@pytest.fixture
def settle(settings: Callable[..., Settings], tmp_path: Path) -> Settle:
    """What becomes of a batch, by default of one run whose child was spawned for it."""

    def outcome(
        reading: Reading,
        ended: Ended = ENDED,
        *,
        runs: list[Run] | None = None,
        spawned: Timestamp = SPAWNED,
        started: Timestamp | None = None,
        demo_device: str | None = None,
    ) -> Outcome:
        return results_of(
            Batch("batch", runs or [run()], claimed_at=CLAIMED.monotonic),
            reading,
            ended,
            settings(run_timeout=900, max_output=2**20),
            spawned=spawned,
            started=started or spawned,
            model="as set",
            folder=tmp_path,
            ahead=started is not None,
            demo_device=demo_device,
        )

    return outcome


def only(outcome: Outcome) -> Result:
    [result] = outcome.results
    return result


# Answers


def test_each_run_gets_the_answer_of_its_own_prompt(settle: Settle) -> None:
    # Batches have 1, 2, 4, ... prompts, so there are more answers than runs here.
    reading = said(Answer("one", 3), Answer("two", MAX_TOKENS), Answer("three", None), Answer("surplus", 1))
    results = settle(reading, runs=[run(0), run(1, waited_seconds=0.25), run(2, waited_seconds=None)]).results
    assert [result.run_id for result in results] == ["run-0", "run-1", "run-2"]
    assert [result.answer.response for result in results if result.answer] == ["one", "two", "three"]
    assert [result.finish_reason for result in results] == ["stop", "length", None]
    assert [result.timing.queue_seconds for result in results] == [3.5, 2.25, None]


def test_a_result_says_where_it_comes_from(settle: Settle, tmp_path: Path) -> None:
    result = only(settle(said()))
    assert (result.failure, result.exit_code, result.log_folder) == (None, 0, str(tmp_path))
    assert (result.device, result.model) == ("N150", "as set")
    assert only(settle(said(model="its base model"))).model == "as set", "as /health and the direct engine call it"


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        pytest.param(0, "stop", id="no token"),
        pytest.param(MAX_TOKENS - 1, "stop", id="one below the limit"),
        pytest.param(MAX_TOKENS, "length", id="at the limit"),
        pytest.param(MAX_TOKENS + 1, "length", id="one above the limit"),
        pytest.param(None, None, id="not known"),
    ],
)
def test_finish_reason(settle: Settle, tokens: int | None, reason: str | None) -> None:
    assert only(settle(said(Answer("text", tokens)))).finish_reason == reason


def test_an_answer_whose_first_token_is_the_end_is_empty_as_on_the_direct_engine(settle: Settle) -> None:
    reading = said(Answer("Four.", 3, 12), Answer("<|eot_id|> again", None, 14), ended_first=frozenset({1}), **ALL)
    whole, empty = settle(reading, runs=[run(0), run(1)]).results
    assert (whole.answer, whole.finish_reason, whole.note) == (Answer("Four.", 3, 12), "stop", None)
    assert (empty.answer, empty.finish_reason, empty.note) == (Answer("", 0, 14), "stop", None)


def test_an_answer_that_may_be_empty_is_noted(settle: Settle) -> None:
    result = only(settle(said(Answer("<|eot_id|> again", None, 14), **ALL)))
    assert (result.answer, result.finish_reason) == (Answer("<|eot_id|> again", None, 14), None)
    assert result.note is not None
    assert "may be empty" in result.note


WHOLE = Answer("Four.", 3, 12)
SPEED = "The demo gives no speed for a run of one decode iteration."
NOTES: dict[str, tuple[Answer, dict[str, Any], str | None]] = {
    "all is known": (WHOLE, {}, None),
    "no device": (WHOLE, {"device": None}, "The demo's log does not tell: device."),
    "no counts": (Answer("Four."), {}, "The demo's log does not tell: prompt_tokens, tokens_generated."),
    "no figures": (
        WHOLE,
        {"metrics": Metrics()},
        "The demo's log does not tell: timing.ttft_ms, timing.decode_tokens_per_second.",
    ),
    "a phase without a beginning": (
        WHOLE,
        {"phases": ALL_PHASES[:1] + ALL_PHASES[2:]},
        "The demo's log does not tell: timing.prefill_compile_seconds.",
    ),
    "one iteration": (WHOLE, {"metrics": Metrics(), "iterations": 1}, SPEED),
    "one iteration, no device": (
        WHOLE,
        {"metrics": Metrics(), "iterations": 1, "device": None},
        f"{SPEED} The demo's log does not tell: device.",
    ),
}


@pytest.mark.parametrize(("answer", "lacking", "note"), NOTES.values(), ids=NOTES)
def test_what_the_log_does_not_tell_is_noted(
    settle: Settle, answer: Answer, lacking: dict[str, Any], note: str | None
) -> None:
    assert only(settle(said(answer, **{**ALL, **lacking}))).note == note


# Failures


def test_a_failure_is_every_runs_and_there_are_no_answers_then(settle: Settle) -> None:
    failure = Failure("demo_failed", "RuntimeError: no.")
    reading = said(Answer("one", 1), Answer("two", 1), error=failure, iterations=1)
    for result in settle(reading, Ended(1, 10.0, None, (), 0), runs=[run(0), run(1)]).results:
        assert (result.failure, result.answer, result.finish_reason, result.note) == (failure, None, None, None)
        assert result.exit_code == 1
        assert result.timing.queue_seconds == 3.5


STOPPED = {
    "timed_out": "The run took longer than 900 s and was stopped.",
    "cancelled": "The run was cancelled.",
    "shutting_down": "The server is stopping; the run was interrupted.",
    "child_lost": "The batch was lost to another server.",
    "output_too_large": "The child printed more than 1048576 bytes and was stopped.",
}


@pytest.mark.parametrize("reason", STOPPED)
@pytest.mark.parametrize(
    "error", [None, Failure("interrupted", "The run was interrupted.")], ids=["answered", "interrupted"]
)
def test_a_stopped_child_is_a_failure_whatever_it_printed(settle: Settle, reason: str, error: Failure | None) -> None:
    result = only(settle(said(error=error), Ended(2, 10.0, reason, ("SIGINT",), 0)))
    assert (result.failure, result.answer) == (Failure(reason, STOPPED[reason]), None)


FORGIVEN = {
    "one iteration": (said(error=Failure("demo_failed", DIVIDED), iterations=1), True),
    "no iteration": (said(error=Failure("demo_failed", DIVIDED), iterations=0), False),
    "two iterations": (said(error=Failure("demo_failed", DIVIDED), iterations=2), False),
    "an answer is missing": (said(error=Failure("demo_failed", DIVIDED), iterations=1, asked=2), False),
    "another error": (said(error=Failure("demo_failed", f"ValueError: no {DIVIDED}"), iterations=1), False),
    "a crash": (said(error=Failure("crashed", DIVIDED), iterations=1), False),
}


@pytest.mark.parametrize(("reading", "forgiven"), FORGIVEN.values(), ids=FORGIVEN)
def test_the_2025_demos_division_by_zero_is_forgiven_for_one_iteration_only(
    settle: Settle, reading: Reading, forgiven: bool
) -> None:
    result = only(settle(reading, Ended(1, 10.0, None, (), 0)))
    assert result.failure == (None if forgiven else reading.error)
    assert (result.answer is not None) is (result.note is not None) is forgiven


@pytest.mark.parametrize("name", ["2025-07-limit1-text", "2025-07-capture_fd_limit1-text"])
def test_a_recorded_division_by_zero_is_an_answer(settle: Settle, name: str) -> None:
    case = TRANSCRIPTS / name
    prompts = [entry["prompt"] for entry in json.loads((case / "prompts.json").read_bytes())]
    reading = parse(prompts, [(case / "stdout.txt").read_bytes()], [(case / "stderr.txt").read_bytes()], 1)
    assert reading.status == "failed"
    outcome = settle(reading, Ended(1, 10.0, None, (), 0))
    assert only(outcome).answer == reading.answers[0]
    assert outcome.suspect is None


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo_api.demo.results._LEAST_FREE_BYTES", float("inf"))


def test_a_failure_on_a_full_disk_says_so_first(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch)
    reading = said(error=Failure("no_answer", "The child ended without an answer to 1 of 1 prompts."))
    failure = only(settle(reading)).failure
    assert failure is not None
    assert failure.code == "storage_full"
    assert failure.message == (
        "The disk of the state folder is full, and the run failed: The child ended without an answer to 1 of 1 prompts."
    )
    assert failure.next_step
    assert "Make room" in failure.next_step


def test_a_full_disk_takes_no_answer_away_and_hides_no_stop(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch)
    assert only(settle(said())).answer == WHOLE
    failure = only(settle(said(), Ended(2, 10.0, "cancelled", ("SIGINT",), 0))).failure
    assert failure == Failure("cancelled", STOPPED["cancelled"])


def test_a_crash_on_a_full_disk_leaves_the_device_in_doubt(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch)
    outcome = settle(said(error=Failure("crashed", "It crashed.")), Ended(42, 10.0, None, (), 0))
    failure = only(outcome).failure
    assert failure is not None
    assert failure.code == "storage_full"
    assert outcome.suspect == "A child crashed with exit code 42."


# The device

FAILED = Failure("demo_failed", "It failed.")
CRASHED = Failure("crashed", "It crashed.")
IN_DOUBT: dict[str, tuple[Ended, Failure | None, str | None]] = {
    "success": (ENDED, None, None),
    "a failed test": (Ended(1, 1.0, None, (), 0), FAILED, None),
    "SIGINT, closed in order": (Ended(2, 1.0, "timed_out", ("SIGINT",), 0), FAILED, None),
    # Others that need the device interrupt a child that waits, perhaps before it has come to the plugin.
    "SIGINT that nobody caught": (Ended(-2, 1.0, "cancelled", ("SIGINT",), 0), FAILED, None),
    "SIGINT that somebody else sent": (Ended(-2, 1.0, None, (), 0), FAILED, None),
    "SIGTERM, closed in order": (
        Ended(2, 1.0, "cancelled", ("SIGINT", "SIGTERM"), 0),
        FAILED,
        "A child ended with exit code 2 after SIGINT, SIGTERM, so it may not have closed the device.",
    ),
    "SIGINT, then SIGTERM that nobody caught": (
        Ended(-2, 1.0, "cancelled", ("SIGINT", "SIGTERM"), 0),
        FAILED,
        "A child ended with exit code -2 after SIGINT, SIGTERM, so it may not have closed the device.",
    ),
    "SIGKILL": (
        Ended(-9, 1.0, "cancelled", ("SIGINT", "SIGTERM", "SIGKILL"), 0),
        FAILED,
        "A child ended with exit code -9 after SIGINT, SIGTERM, SIGKILL, so it may not have closed the device.",
    ),
    "SIGTERM that somebody else sent": (
        Ended(-15, 1.0, None, (), 0),
        FAILED,
        "A child ended with exit code -15, so it may not have closed the device.",
    ),
    "SIGKILL that somebody else sent": (
        Ended(-9, 1.0, None, (), 0),
        FAILED,
        "A child ended with exit code -9, so it may not have closed the device.",
    ),
    "a segmentation fault": (
        Ended(-11, 1.0, None, (), 0),
        CRASHED,
        "A child ended with exit code -11, so it may not have closed the device.",
    ),
    "a crash without a signal": (Ended(42, 1.0, None, (), 0), CRASHED, "A child crashed with exit code 42."),
    "success, but processes outlived it": (
        Ended(0, 1.0, None, (), 2),
        None,
        "2 processes that a child had started outlived it and had to be ended.",
    ),
    "SIGINT, but processes outlived it": (
        Ended(-2, 1.0, "cancelled", ("SIGINT",), 1),
        FAILED,
        "1 processes that a child had started outlived it and had to be ended.",
    ),
}


@pytest.mark.parametrize(("ended", "error", "suspect"), IN_DOUBT.values(), ids=IN_DOUBT)
def test_the_device_is_in_doubt_unless_every_process_could_close_it(
    settle: Settle, ended: Ended, error: Failure | None, suspect: str | None
) -> None:
    assert settle(said(error=error), ended).suspect == suspect


def test_what_ended_before_pytest_began_has_opened_no_device(settle: Settle, tmp_path: Path) -> None:
    (tmp_path / "stdout.txt").touch()
    (tmp_path / "stderr.txt").write_text("Illegal instruction\n")
    ended = Ended(-4, 1.0, None, (), 0)
    assert settle(said(error=CRASHED), ended).suspect is None
    (tmp_path / "stderr.txt").write_text('Note: \n{"text": "demo_api_child: started\\n", "record": {}}\n')
    assert settle(said(error=CRASHED), ended).suspect is not None


# Times


def test_the_times_of_a_cold_child(settle: Settle) -> None:
    metrics = Metrics(ttft_ms=91.5, tokens_per_second_per_user=64.3, tokens_per_second=128.6)
    assert only(settle(said(phases=ALL_PHASES, metrics=metrics))).timing == Timing(
        warm="off",
        queue_seconds=3.5,
        startup_seconds=1.0,
        startup_ahead_seconds=0.0,
        load_seconds=1.5,
        prefill_compile_seconds=0.5,
        prefill_seconds=0.25,
        decode_compile_seconds=0.75,
        decode_seconds=3.0,
        teardown_seconds=3.0,
        ttft_ms=91.5,
        decode_tokens_per_second=64.3,
    )


def test_what_is_not_known_of_the_times_is_null(settle: Settle) -> None:
    known = Timing(warm="off", queue_seconds=3.5, startup_ahead_seconds=0.0)
    assert only(settle(said())).timing == known, "the test was never reached"
    plain = phases(("load", None), ("prefill", None), ("output", None))
    assert only(settle(said(phases=plain))).timing == known, "a plain log has no times"
    part = phases(("load", 1003.0), ("prefill", 1005.0))
    timing = only(settle(said(phases=part))).timing
    assert (timing.startup_seconds, timing.load_seconds, timing.prefill_seconds) == (1.0, 2.0, None)
    assert timing.teardown_seconds is None, "it ended in the middle"
    unmeasured = said(metrics=Metrics(ttft_ms=0.0, tokens_per_second_per_user=0.0))
    assert only(settle(unmeasured)).timing.decode_tokens_per_second is None, "the 2026 demo prints 0 then"


def test_a_run_that_did_not_wait_waited_for_nothing(settle: Settle) -> None:
    result = only(settle(said(), runs=[run(waited_seconds=0.0)], spawned=CLAIMED))
    assert result.timing.queue_seconds == 0.0


# A warm child: it was spawned 40 s before the batch was claimed, waits after 3 s, gets the batch at 51, ends at 58.
@pytest.mark.parametrize("set_by", [3600.0, -3600.0], ids=["forward", "back"])
def test_times_across_a_wall_clock_that_was_set_are_unknown(settle: Settle, set_by: float) -> None:
    reading = said(phases=phases(("load", 1003.0), ("prefill", 1005.0 + set_by), ("output", 1006.0 + set_by)))
    timing = only(settle(reading)).timing
    assert (timing.startup_seconds, timing.prefill_seconds) == (1.0, 1.0)
    assert (timing.load_seconds, timing.teardown_seconds) == (None, None)


WARM = {"spawned": Timestamp(wall=960.0, monotonic=10.0), "ended": Ended(0, 58.0, None)}


@pytest.mark.parametrize("clock_was_set_by", [0.0, 5000.0, -500.0], ids=["not set", "set forward", "set back"])
def test_a_clock_that_is_set_while_a_warm_child_waits_changes_no_time(settle: Settle, clock_was_set_by: float) -> None:
    given = 1001.0 + clock_was_set_by
    times = phases(("load", given + 1), ("prefill", given + 3), ("output", given + 5))
    reading = said(phases=times, waiting_at=963.0)
    timing = only(settle(reading, **WARM, started=Timestamp(wall=given, monotonic=51.0))).timing
    assert timing == Timing(
        warm="imports",
        queue_seconds=2.5,
        startup_ahead_seconds=3.0,
        startup_seconds=1.0,
        load_seconds=2.0,
        prefill_seconds=2.0,
        teardown_seconds=2.0,
    )


@pytest.mark.parametrize("waiting_at", [None, 1003.0], ids=["it never waited", "it was ready later"])
def test_of_a_warm_child_that_was_not_ready_the_time_before_its_batch_is_ahead(
    settle: Settle, waiting_at: float | None
) -> None:
    reading = said(phases=phases(("load", 1004.0)), waiting_at=waiting_at)
    timing = only(settle(reading, **WARM, started=Timestamp(wall=1001.0, monotonic=51.0))).timing
    assert (timing.startup_ahead_seconds, timing.startup_seconds) == (41.0, 3.0)
