"""The ledger: the line, the history, and the states of the devices, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from support.databases import OpenLedger, in_processes, in_threads, own_process
from support.waiting import join, pause

from demo_api.config import Settings
from demo_api.errors import BadRequest, IdempotencyConflict, NoSuchRun, QueueFull, RunEnded
from demo_api.messages import Answer, Batch, Event, Failure, Outcome, Request, Result, Run, Timing
from demo_api.queue import Database, DeviceState, Ledger, Node, RunQueue
from demo_api.queue.schema import batches as batch_table
from demo_api.queue.schema import events as event_table
from demo_api.queue.schema import runs as run_table

A_DAY = 86_400
A_FORTNIGHT = 14 * A_DAY


def ask(prompt: str = "Hello", **fields: object) -> Request:
    return Request.model_validate({"prompt": prompt, **fields})


def claim(ledger: Ledger | RunQueue, device: str = "device") -> Batch:
    line = ledger.queue if isinstance(ledger, Ledger) else ledger
    batch = line.claim(device, list)
    assert batch is not None
    return batch


def answers(batch: Batch) -> list[Result]:
    return [Result(run.run_id, answer=Answer(run.request.prompt, 1)) for run in batch.runs]


def prompts(runs: Sequence[Run]) -> list[str]:
    return [run.request.prompt for run in runs]


def ids(runs: Sequence[Run]) -> list[str]:
    return [run.run_id for run in runs]


def state_of(ledger: Ledger, runs: Sequence[Run]) -> list[tuple[str, int | None, int]]:
    kept = [ledger.history.get(run.run_id) for run in runs]
    return [(run.status, run.position, run.attempts) for run in kept]


def kinds(ledger: Ledger, run: Run) -> list[str]:
    return [event.kind for _, event in ledger.history.events(run.run_id)]


def everything(database: Database) -> list[list[Any]]:
    """All that the ledger says of runs, batches and events."""
    tables = (run_table, batch_table, event_table)
    with database.read() as connection:
        return [list(connection.execute(select(table).order_by(*table.primary_key)).all()) for table in tables]


# What is accepted


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("What is 2+2?", id="plain"),
        pytest.param("x" * 32_768, id="longest"),
        pytest.param("a\x00b\x1f\r\n\t\u2028", id="control characters"),
        pytest.param("日本語 🦙 e\u0301 \u202e", id="all scripts"),
        pytest.param("'; DROP TABLE runs; -- \" \\u0000 %s :p ?", id="looks like SQL"),
    ],
)
def test_a_run_is_kept_as_it_was_asked_for_and_answered(open_ledger: OpenLedger, prompt: str) -> None:
    ledger, other = open_ledger(), open_ledger()
    request = ask(prompt, max_tokens=7, temperature=0.1, top_p=1 / 3, seed=2**32 - 2)
    before = time.time()
    accepted = ledger.queue.submit([request])[0]
    kept = other.history.get(accepted.run_id)
    assert kept == accepted
    assert (kept.request, kept.status, kept.position) == (request, "queued", 1)
    assert before - 1 <= kept.accepted_at <= time.time() + 1
    batch = claim(other)
    result = Result(
        accepted.run_id,
        answer=Answer(f"{prompt} \ud800", None),
        timing=Timing(queue_seconds=0.1, ttft_ms=1 / 3),
        model="m",
        device="d",
        finish_reason="length",
        exit_code=0,
        log_folder="/a/folder",
        note=prompt,
    )
    assert ledger.queue.finish(batch.batch_id, [result], 1.5)
    assert ledger.history.get(accepted.run_id).result == result


@pytest.mark.parametrize("count", [1, 2, 32])
def test_runs_that_are_submitted_together_stand_in_the_line_in_their_order(open_ledger: OpenLedger, count: int) -> None:
    ledger = open_ledger()
    runs = ledger.queue.submit([ask(str(number)) for number in range(count)])
    assert [run.position for run in runs] == list(range(1, count + 1))
    assert len(set(ids(runs))) == count
    assert state_of(ledger, runs) == [("queued", place, 0) for place in range(1, count + 1)]


def test_a_submission_for_which_there_is_no_room_leaves_nothing(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=3)
    ledger.queue.submit([ask("a"), ask("b")])
    with pytest.raises(QueueFull, match="2 runs are waiting, and 3 may"):
        ledger.queue.submit([ask("c"), ask("d")])
    assert prompts(ledger.history.page()) == ["b", "a"]
    ledger.queue.submit([ask("c")])
    assert ledger.queue.describe() == {"waiting": 3, "running": 0, "limit": 3}


def test_only_those_who_wait_take_room(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=2, max_batch=1)
    first, _ = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    ledger.queue.submit([ask("c")])
    with pytest.raises(QueueFull):
        ledger.queue.submit([ask("d")])
    assert ledger.queue.describe() == {"waiting": 2, "running": 1, "limit": 2}
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    assert ledger.queue.describe() == {"waiting": 2, "running": 0, "limit": 2}
    assert ledger.history.get(first.run_id).status == "succeeded"


# Of 160 that come at once


def _submit_from_threads(url: str) -> list[str]:
    database = Database(url)
    line = RunQueue(database, Node("node"), max_queue=100, max_batch=32, lease=20)

    def submit() -> str:
        try:
            return line.submit([ask()])[0].run_id
        except QueueFull as error:
            return f"refused: {error.fields['retry_after']}"

    with ThreadPoolExecutor(20) as pool:
        returned = [each.result() for each in [pool.submit(submit) for _ in range(20)]]
    database.close()
    return returned


def test_of_160_submissions_at_once_exactly_as_many_are_accepted_as_may_wait(url: str, open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=100)
    told = [each for process in in_processes(8, _submit_from_threads, url) for each in process]
    refused = [each for each in told if each.startswith("refused")]
    accepted = set(told) - set(refused)
    assert (len(told), len(accepted)) == (160, 100)
    assert refused == ["refused: 1"] * 60
    waiting = ledger.history.page(limit=200)
    assert set(ids(waiting)) == accepted
    assert [run.position for run in waiting] == list(range(100, 0, -1))


def retry_after(ledger: Ledger) -> int:
    """What a full line tells who comes."""
    with pytest.raises(QueueFull) as caught:
        ledger.queue.submit([ask()])
    seconds = caught.value.fields["retry_after"]
    assert isinstance(seconds, int)
    return seconds


@pytest.mark.parametrize(
    ("measured", "runs_for", "waiting", "expected"),
    [
        pytest.param([], None, "aaaa", 1, id="nothing is known"),
        pytest.param([], 6.05, "aaaa", 7, id="none has ended and one runs"),
        pytest.param([10, 20, 60], None, "aaaa", 20, id="one batch ahead of the last"),
        pytest.param([10, 20, 60], None, "aa", 1, id="no batch ahead of the last"),
        pytest.param([10, 20], None, "aaaa", 15, id="the median of two"),
        pytest.param([10, 20, 60], 5, "aaaa", 35, id="and the rest of the one that runs"),
        pytest.param([10, 20, 60], 5, "aa", 15, id="only the rest of the one that runs"),
        pytest.param([10, 20, 60], 50, "aaaa", 20, id="one that runs for longer than it should"),
        pytest.param([10, 20, 60], None, "abcd", 60, id="none are alike"),
        pytest.param([10, 20, 60], None, "abbba", 40, id="three batches"),
        pytest.param([10.2], None, "aaaa", 11, id="whole seconds"),
        pytest.param([1000] * 20 + [10] * 20, None, "aaaa", 10, id="only the latest twenty"),
        pytest.param([None, 30, None], None, "aaaa", 30, id="those that started no child do not count"),
    ],
)
def test_who_is_refused_is_told_when_the_line_will_have_gone(
    open_ledger: OpenLedger,
    database: Database,
    measured: list[float | None],
    runs_for: float | None,
    waiting: str,
    expected: int,
) -> None:
    ledger = open_ledger(max_queue=len(waiting), max_batch=2)
    for seconds in measured:
        ledger.queue.submit([ask()])
        batch = claim(ledger)
        ledger.queue.finish(batch.batch_id, answers(batch), seconds)
    if runs_for is not None:
        ledger.queue.submit([ask()])
        running = claim(ledger).batch_id
        _move(database, batch_table, batch_table.c.batch_id == running, started_clock=-runs_for)
    ledger.queue.submit([ask(max_tokens=ord(kind)) for kind in waiting])
    assert retry_after(ledger) == expected


def test_nobody_is_told_to_come_back_in_days_when_the_hosts_clock_began_anew(
    open_ledger: OpenLedger, database: Database
) -> None:
    ledger = open_ledger(max_queue=1, max_batch=1)
    for _ in range(20):
        ledger.queue.submit([ask()])
        batch = claim(ledger)
        ledger.queue.finish(batch.batch_id, answers(batch), 5000)
    ledger.queue.submit([ask()])
    claim(ledger)
    _move(database, batch_table, batch_table.c.batch_id != "", started_clock=A_FORTNIGHT)
    ledger.queue.submit([ask()])
    assert retry_after(ledger) <= 5000
    for _ in range(20):
        batch = claim(ledger)
        ledger.queue.finish(batch.batch_id, answers(batch), 3)
        ledger.queue.submit([ask()])
    assert retry_after(ledger) <= 3


# Asked twice


def test_who_asks_again_under_the_same_key_gets_the_first_runs(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(max_queue=2), open_ledger(max_queue=2)
    requests = [ask("a"), ask("b")]
    first = ledger.queue.submit(requests, "key")
    assert ids(other.queue.submit(requests, "key")) == ids(first)  # although the line is full
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    again = other.queue.submit(requests, "key")
    assert [(run.run_id, run.status) for run in again] == [(run.run_id, "succeeded") for run in first]
    assert len(ledger.history.page()) == 2


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(["b"], id="another prompt"),
        pytest.param(["a", "a"], id="more of them"),
        pytest.param(["a", "b"], id="one more"),
    ],
)
def test_a_key_cannot_be_used_for_something_else(open_ledger: OpenLedger, others: list[str]) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask("a")], "key")
    with pytest.raises(IdempotencyConflict):
        ledger.queue.submit([ask(prompt) for prompt in others], "key")
    with pytest.raises(IdempotencyConflict):
        ledger.queue.submit([ask("a", max_tokens=5)], "key")
    assert prompts(ledger.history.page()) == ["a"]
    ledger.queue.submit([ask("b")], "KEY")
    ledger.queue.submit([ask("b")])
    assert prompts(ledger.history.page()) == ["b", "b", "a"]


def test_a_key_of_which_nothing_was_accepted_can_be_used(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=1)
    with pytest.raises(QueueFull):
        ledger.queue.submit([ask("a"), ask("b")], "key")
    assert prompts(ledger.queue.submit([ask("c")], "key")) == ["c"]


def _submit_under_one_key(url: str) -> list[tuple[str, ...]]:
    database = Database(url)
    line = RunQueue(database, Node("node"), max_queue=100, max_batch=32, lease=20)
    told = in_threads(5, lambda: tuple(ids(line.submit([ask("a"), ask("b")], "key"))))
    database.close()
    return told


def test_one_key_used_by_many_at_once_is_accepted_once(url: str, open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    told = {each for process in in_processes(4, _submit_under_one_key, url) for each in process}
    assert told == {tuple(reversed(ids(ledger.history.page())))}
    assert prompts(ledger.history.page()) == ["b", "a"]


# What a child is given


def test_runs_are_taken_in_the_order_of_their_arrival(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    for number in range(5):
        ledger.queue.submit([ask(str(number), max_tokens=number + 1)])
    assert [prompts(claim(ledger).runs) for _ in range(5)] == [["0"], ["1"], ["2"], ["3"], ["4"]]
    assert ledger.queue.claim("device", list) is None


@pytest.mark.parametrize(
    ("waiting", "max_batch", "expected"),
    [
        pytest.param("aaaaa", 32, ["01234"], id="all are alike"),
        pytest.param("aaaaa", 2, ["01", "23", "4"], id="more than may go together"),
        pytest.param("abcab", 32, ["03", "14", "2"], id="three kinds"),
        pytest.param("abaa", 2, ["02", "1", "3"], id="whoever stands in front goes next"),
    ],
)
def test_those_that_are_alike_go_together_behind_the_oldest(
    open_ledger: OpenLedger, waiting: str, max_batch: int, expected: list[str]
) -> None:
    ledger = open_ledger(max_batch=max_batch)
    ledger.queue.submit([ask(str(place), max_tokens=ord(kind)) for place, kind in enumerate(waiting)])
    taken = ["".join(prompts(claim(ledger).runs)) for _ in expected]
    assert taken == expected
    assert ledger.queue.claim("device", list) is None


def test_no_more_than_32_go_together(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=40)
    for first in (0, 20):
        ledger.queue.submit([ask(str(number)) for number in range(first, first + 20)])
    assert prompts(claim(ledger).runs) == [str(number) for number in range(32)]
    assert prompts(claim(ledger).runs) == [str(number) for number in range(32, 40)]


def test_what_differs_in_more_than_its_prompt_goes_alone(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    sampling: list[dict[str, object]] = [
        {},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"temperature": 0.7},
        {"top_p": 0.5},
        {"seed": 0},
    ]
    for fields in sampling:
        ledger.queue.submit([ask(f"{fields}", **fields)])
    alone = [[f"{each}"] for each in sampling]
    assert [prompts(claim(ledger).runs) for _ in alone] == alone


def test_what_the_engine_leaves_stays_in_front(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    runs = ledger.queue.submit([ask(prompt) for prompt in "abcd"])
    offered = []

    def every_other(found: Sequence[Run]) -> list[Run]:
        offered.extend(prompts(found))
        return list(found[::2])

    batch = ledger.queue.claim("device", every_other)
    assert batch is not None
    assert offered == ["a", "b", "c", "d"]
    assert prompts(batch.runs) == ["a", "c"]
    assert state_of(ledger, runs) == [("running", None, 1), ("queued", 1, 0), ("running", None, 1), ("queued", 2, 0)]
    assert prompts(claim(ledger).runs) == ["b", "d"]


def test_nothing_is_taken_when_the_engine_cannot_choose(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask()])
    before = everything(database)

    def break_(found: Sequence[Run]) -> list[Run]:
        raise OSError(f"cannot choose of {len(found)}")

    with pytest.raises(OSError, match="cannot choose of 1"):
        ledger.queue.claim("device", break_)
    assert everything(database) == before


def test_a_run_says_who_runs_it_since_when_and_for_how_long_it_had_waited(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    run = ledger.queue.submit([ask()])[0]
    pause(0.3)
    batch = claim(ledger)
    (running,) = batch.runs
    assert running == ledger.history.get(run.run_id)
    assert (running.status, running.batch_id, running.position) == ("running", batch.batch_id, None)
    assert running.waited_seconds is not None
    assert running.waited_seconds >= 0.3
    assert running.started_at == pytest.approx(running.accepted_at + running.waited_seconds, abs=1)
    pause(0.3)
    ledger.queue.finish(batch.batch_id, answers(batch), 0.3)
    ended = ledger.history.get(run.run_id)
    assert (ended.status, ended.ended) == ("succeeded", True)
    assert ended.time_seconds is not None
    assert running.waited_seconds + 0.3 <= ended.time_seconds
    assert ended.finished_at == pytest.approx(ended.accepted_at + ended.time_seconds, abs=1)


def _claim_all(url: str) -> list[list[str]]:
    database = Database(url)
    line = RunQueue(database, Node("node"), max_queue=100, max_batch=4, lease=20)
    taken = []
    while (batch := line.claim("device", list)) is not None:
        taken.append(ids(batch.runs))
    database.close()
    return taken


def test_no_run_is_given_to_two_who_claim_at_once(url: str, open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_queue=80)
    runs = ledger.queue.submit([ask(max_tokens=number % 3 + 1) for number in range(80)])
    taken = [batch for process in in_processes(4, _claim_all, url) for batch in process]
    assert sorted(run_id for batch in taken for run_id in batch) == sorted(ids(runs))
    assert all(1 <= len(batch) <= 4 for batch in taken)
    assert {(run.status, run.attempts) for run in ledger.history.page(limit=80)} == {("running", 1)}


def test_two_who_claim_at_once_take_what_stands_in_front_and_what_stands_behind_it(
    url: str, open_ledger: OpenLedger
) -> None:
    one, other = open_ledger(max_batch=2), open_ledger(max_batch=2)
    one.queue.submit([ask(prompt) for prompt in "abcd"])
    taken: list[list[str]] = []
    second = threading.Thread(target=lambda: taken.append(prompts(claim(other).runs)))

    def slowly(found: Sequence[Run]) -> list[Run]:
        second.start()
        # PostgreSQL lets the other one pass by; with SQLite there is one who writes, so it waits.
        second.join(10 if url.startswith("postgresql") else 0.3)
        taken.append(prompts(found))
        return list(found)

    one.queue.claim("device", slowly)
    join(second)
    assert taken == ([["c", "d"], ["a", "b"]] if url.startswith("postgresql") else [["a", "b"], ["c", "d"]])


# How runs end


def test_a_result_says_what_becomes_of_a_run(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    becomes = {
        None: "succeeded",
        "demo_failed": "failed",
        "crashed": "failed",
        "timed_out": "timed_out",
        "cancelled": "cancelled",
    }
    runs = ledger.queue.submit([ask(str(code)) for code in becomes])
    results = [
        Result(run.run_id, failure=Failure(code, "So it ended.")) if code else Result(run.run_id, Answer("yes", 3))
        for run, code in zip(runs, becomes, strict=True)
    ]
    assert ledger.queue.finish(claim(ledger).batch_id, results[::-1], 1)
    ended = [ledger.history.get(run.run_id) for run in runs]
    assert [run.status for run in ended] == list(becomes.values())
    assert [run.result for run in ended] == results
    for run in runs:
        number, last = ledger.history.events(run.run_id)[-1]
        assert (number, last.kind, last.data) == (3, "done", {})


USES: dict[str, Callable[[Ledger, Batch], object]] = {
    "finish": lambda ledger, batch: ledger.queue.finish(batch.batch_id, answers(batch), 1),
    "give_back": lambda ledger, batch: ledger.queue.requeue(batch.batch_id),
    "beat": lambda ledger, batch: ledger.queue.beat(batch.batch_id),
    "tell": lambda ledger, batch: ledger.queue.append_events(
        batch.batch_id, {run.run_id: [Event("phase", None, {"phase": "decode"})] for run in batch.runs}
    ),
}


@pytest.mark.parametrize("then", ["waits", "runs elsewhere", "has ended elsewhere"])
def test_who_lost_a_batch_can_do_nothing_with_it(open_ledger: OpenLedger, database: Database, then: str) -> None:
    ledger, other = open_ledger(), open_ledger()
    ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    assert other.queue.recover([batch.batch_id]) == [batch.batch_id]
    if then != "waits":
        again = claim(other)
        assert again.batch_id != batch.batch_id
        if then == "has ended elsewhere":
            other.queue.finish(again.batch_id, answers(again), 1)
    before = everything(database)
    for name, use in USES.items():
        assert not use(ledger, batch), name
        assert everything(database) == before, name


@pytest.mark.parametrize("ending", ["finish", "give_back"])
def test_a_batch_can_be_ended_once(open_ledger: OpenLedger, database: Database, ending: str) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask()])
    batch = claim(ledger)
    assert USES[ending](ledger, batch) is True
    before = everything(database)
    for name, use in USES.items():
        assert not use(ledger, batch), name
        assert everything(database) == before, name


def test_runs_that_are_given_back_stand_where_they_stood_and_were_not_tried(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=2)
    runs = ledger.queue.submit([ask(prompt) for prompt in "abcd"])
    first, second = claim(ledger), claim(ledger)
    assert ledger.queue.requeue(second.batch_id)
    assert ledger.queue.requeue(first.batch_id)
    assert state_of(ledger, runs) == [("queued", place, 0) for place in (1, 2, 3, 4)]
    back = ledger.history.get(runs[1].run_id)
    assert (back.started_at, back.waited_seconds, back.result) == (None, None, None)
    told = ledger.history.events(runs[1].run_id)
    assert [(event.kind, event.data.get("position")) for _, event in told] == [
        ("queued", 2),
        ("started", None),
        ("queued", 2),
    ]
    assert prompts(claim(ledger).runs) == ["a", "b"]


def test_giving_back_may_go_on_for_ever(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    (run,) = ledger.queue.submit([ask()])
    for _ in range(5):
        assert ledger.queue.requeue(claim(ledger).batch_id)
    assert state_of(ledger, [run]) == [("queued", 1, 0)]


# Lost batches


def test_a_lost_run_goes_back_to_its_place_twice_and_fails_the_third_time(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    run, later = ledger.queue.submit([ask("a"), ask("b")])
    for attempt in (1, 2):
        batch = claim(ledger)
        assert ledger.queue.recover([batch.batch_id]) == [batch.batch_id]
        assert state_of(ledger, [run, later]) == [("queued", 1, attempt), ("queued", 2, 0)]
    ledger.queue.recover([claim(ledger).batch_id])
    ended = ledger.history.get(run.run_id)
    assert (ended.status, ended.attempts) == ("failed", 3)
    assert ended.result is not None
    assert ended.result.failure is not None
    assert ended.result.failure.code == "child_lost"
    assert "3 times" in ended.result.failure.message
    assert kinds(ledger, run) == ["queued", "started", "queued", "started", "queued", "started", "done"]
    assert state_of(ledger, [later]) == [("queued", 1, 0)]


def test_on_its_last_attempt_a_run_is_alone(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask("a"), ask("b")])
    for _ in range(2):
        batch = claim(ledger)
        assert prompts(batch.runs) == ["a", "b"]
        ledger.queue.recover([batch.batch_id])
    ledger.queue.submit([ask("c"), ask("d")])
    assert [prompts(claim(ledger).runs) for _ in "123"] == [["a"], ["b"], ["c", "d"]]


def test_who_stands_in_front_takes_none_along_that_is_on_its_last_attempt(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    ledger.queue.submit([ask("a"), ask("b")])
    first = claim(ledger)
    for _ in range(2):
        ledger.queue.recover([claim(ledger).batch_id])
    ledger.queue.requeue(first.batch_id)
    other = open_ledger()
    other.queue.submit([ask("c")])
    assert [prompts(claim(other).runs) for _ in "12"] == [["a", "c"], ["b"]]


def test_a_batch_is_lost_when_nobody_has_beaten_for_it_in_time(open_ledger: OpenLedger, database: Database) -> None:
    ledger, other = open_ledger(lease=20, max_batch=1), open_ledger(lease=20)
    ledger.queue.submit([ask("a"), ask("b")])
    dead, living = claim(ledger), claim(ledger)
    assert other.queue.recover() == []
    _move(database, batch_table, batch_table.c.batch_id != "", lease_until=-19.0)
    assert other.queue.recover() == []
    assert ledger.queue.beat(living.batch_id)
    _move(database, batch_table, batch_table.c.batch_id != "", lease_until=-1.5)
    assert other.queue.recover() == [dead.batch_id]
    assert other.queue.recover() == []
    assert ledger.queue.beat(living.batch_id)
    assert not ledger.queue.beat(dead.batch_id)


def test_a_lease_from_before_the_hosts_clock_began_anew_is_over(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    (run,) = ledger.queue.submit([ask()])
    batch = claim(ledger)
    _move(database, batch_table, batch_table.c.batch_id == batch.batch_id, lease_until=A_FORTNIGHT)
    assert ledger.queue.recover() == [batch.batch_id]
    assert state_of(ledger, [run]) == [("queued", 1, 1)]


def test_lost_batches_are_known_by_their_device_until_what_they_left_is_ended(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    ledger.queue.submit([ask(prompt) for prompt in "abcd"])
    lost, lost_too, kept, elsewhere = claim(ledger), claim(ledger), claim(ledger), claim(ledger, "other")
    ledger.queue.recover([lost.batch_id, lost_too.batch_id, elsewhere.batch_id])
    assert sorted(ledger.queue.batches("device", "lost")) == sorted([lost.batch_id, lost_too.batch_id])
    assert ledger.queue.batches("device", "open") == [kept.batch_id]
    ledger.queue.forget_lost("device")
    assert ledger.queue.batches("device", "lost") == []
    assert ledger.queue.batches("device", "open") == [kept.batch_id]
    assert ledger.queue.batches("other", "lost") == [elsewhere.batch_id]


def test_a_batch_is_lost_once_though_many_find_it(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    (run,) = ledger.queue.submit([ask()])
    batch = claim(ledger)
    found = in_threads(4, lambda: ledger.queue.recover([batch.batch_id]))
    assert sorted(found) == [[], [], [], [batch.batch_id]]
    assert kinds(ledger, run) == ["queued", "started", "queued"]


def _die_after(url: str, node: Node, step: str) -> None:
    line = RunQueue(Database(url), node, max_queue=10, max_batch=32, lease=20)

    def die(_found: object = None) -> list[Run]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    if step == "submit":
        line.submit([ask("submitted"), ask("together")])
    elif step == "choose":
        line.claim("device", die)
    elif step == "claim":
        claim(line)
    elif step == "finish":
        batch = claim(line)
        line.finish(batch.batch_id, answers(batch), 1)
    die()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param("submit", [("queued", 1), ("queued", 2), ("queued", 3)], id="when it has accepted"),
        pytest.param("choose", [("queued", 1)], id="while it claims"),
        pytest.param("claim", [("running", None)], id="when it has claimed"),
        pytest.param("finish", [("succeeded", None)], id="when it has finished"),
    ],
)
def test_what_was_said_holds_though_the_server_is_killed(
    url: str,
    open_ledger: OpenLedger,
    settings: Callable[..., Settings],
    step: str,
    expected: list[tuple[str, int | None]],
) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask()])
    with own_process(_die_after, url, Node.of(settings().state_dir), step) as server:
        server.join(60)
        assert server.exitcode == -signal.SIGKILL
    kept = ledger.history.page()[::-1]
    assert [(run.status, run.position) for run in kept] == expected
    if step != "finish":
        ledger.queue.recover(ledger.queue.batches("device", "open"))
        assert len(claim(ledger).runs) == len(expected)


# Cancelled


def test_a_waiting_run_is_cancelled_and_never_claimed(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    first, second = ledger.queue.submit([ask("a"), ask("b")])
    cancelled = ledger.queue.cancel(first.run_id)
    assert cancelled == ledger.history.get(first.run_id)
    assert (cancelled.status, cancelled.position, cancelled.attempts) == ("cancelled", None, 0)
    assert cancelled.time_seconds is not None
    assert kinds(ledger, first) == ["queued", "done"]
    assert state_of(ledger, [second]) == [("queued", 1, 0)]
    assert prompts(claim(ledger).runs) == ["b"]


def test_a_running_run_is_cancelled_at_once_and_the_others_of_its_batch_end_as_they_do(
    open_ledger: OpenLedger,
) -> None:
    ledger = open_ledger()
    first, second = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    assert ledger.queue.cancel(first.run_id).status == "cancelled"
    assert ledger.queue.wanted(batch.batch_id) == {second.run_id}
    assert ledger.queue.finish(batch.batch_id, answers(batch), 1)
    assert state_of(ledger, [first, second]) == [("cancelled", None, 1), ("succeeded", None, 1)]
    assert kinds(ledger, first) == ["queued", "started", "done"]


def test_a_batch_is_unwanted_when_all_of_its_runs_are_cancelled(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    runs = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    for run in runs:
        assert run.run_id in ledger.queue.wanted(batch.batch_id)
        ledger.queue.cancel(run.run_id)
    assert ledger.queue.wanted(batch.batch_id) == set()
    assert ledger.queue.requeue(batch.batch_id)
    assert ledger.queue.claim("device", list) is None


def test_a_cancelled_run_of_a_lost_batch_stays_cancelled(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    first, second = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    ledger.queue.cancel(first.run_id)
    ledger.queue.recover([batch.batch_id])
    assert state_of(ledger, [first, second]) == [("cancelled", None, 1), ("queued", 1, 1)]


def test_cancelling_again_changes_nothing_and_what_has_ended_otherwise_cannot_be_cancelled(
    open_ledger: OpenLedger, database: Database
) -> None:
    ledger = open_ledger(max_batch=1)
    first, second = ledger.queue.submit([ask("a"), ask("b")])
    cancelled = ledger.queue.cancel(first.run_id)
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    before = everything(database)
    assert ledger.queue.cancel(first.run_id) == cancelled
    with pytest.raises(RunEnded, match="succeeded") as caught:
        ledger.queue.cancel(second.run_id)
    assert caught.value.fields["run_id"] == second.run_id
    with pytest.raises(NoSuchRun, match="There is no run none"):
        ledger.queue.cancel("none")
    assert everything(database) == before


def test_a_run_that_is_cancelled_while_its_batch_ends_has_one_end(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()

    def race() -> None:
        (run,) = ledger.queue.submit([ask()])
        batch = claim(ledger)
        steps: list[Callable[[], object]] = [
            lambda: ledger.queue.finish(batch.batch_id, answers(batch), 1),
            lambda: ledger.queue.cancel(run.run_id),
        ]
        told = in_threads(2, lambda: steps.pop()())
        ended = ledger.history.get(run.run_id)
        assert kinds(ledger, run) == ["queued", "started", "done"]
        assert [type(each) for each in told if isinstance(each, Exception)] == (
            [RunEnded] if ended.status == "succeeded" else []
        )
        assert ended.status in ("succeeded", "cancelled")

    for _ in range(10):
        race()


# Events


def test_events_are_numbered_from_one_and_can_be_had_from_any_number(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    run, silent = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    told = [
        Event("phase", 1.5, {"phase": "load"}),
        Event("text", None, {"added": "ü\x00\ud800 🦙", "best_effort": True}),
        Event("progress", 1e9 + 1 / 3, {"iteration": 3, "tokens_per_second_per_user": 1 / 3}),
    ]
    ledger.queue.append_events(batch.batch_id, {run.run_id: told[:2], "not one of them": told})
    ledger.queue.append_events(batch.batch_id, {run.run_id: told[2:]})
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    events = other.history.events(run.run_id)
    assert [number for number, _ in events] == [1, 2, 3, 4, 5, 6]
    assert [event for _, event in events[2:5]] == told
    for after in range(8):
        assert other.history.events(run.run_id, after) == events[after:]
    assert kinds(other, silent) == ["queued", "started", "done"]
    assert other.history.get(run.run_id).last_event == 6
    assert other.history.events("none") == []


def _tell_often(url: str, batch_id: str, run_ids: list[str], who: int) -> None:
    database = Database(url)
    line = RunQueue(database, Node("node"), max_queue=10, max_batch=32, lease=20)
    for count in range(10):
        event = Event("progress", None, {"who": who, "count": count})
        line.append_events(batch_id, {run_id: [event, event] for run_id in run_ids})
    database.close()


def _tell_from_threads(url: str, batch_id: str, run_ids: list[str]) -> list[Exception]:
    return [each for each in in_threads(2, lambda: _tell_often(url, batch_id, run_ids, os.getpid())) if each]


def test_events_that_many_write_at_once_are_numbered_without_a_gap(url: str, open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    runs = ledger.queue.submit([ask("a"), ask("b")])
    batch = claim(ledger)
    assert in_processes(2, _tell_from_threads, url, batch.batch_id, ids(runs)) == [[], []]
    for run in runs:
        events = ledger.history.events(run.run_id)
        assert [number for number, _ in events] == list(range(1, 83))
        assert len([event for _, event in events if event.kind == "progress"]) == 80


def test_the_positions_of_those_that_are_followed_are_known_and_cost_no_event(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    runs = ledger.queue.submit([ask(prompt) for prompt in "abcd"])

    def positions() -> list[int | None]:
        progress_of = ledger.history.progress(ids(runs), ids(runs[1:]))
        return [progress_of[run.run_id].position for run in runs]

    assert positions() == [None, 2, 3, 4]
    claim(ledger)
    ledger.queue.cancel(runs[2].run_id)
    assert positions() == [None, 1, None, 2]
    assert [run.position for run in ledger.history.page()] == [2, None, 1, None]
    assert [kinds(ledger, run) for run in runs] == [["queued", "started"], ["queued"], ["queued", "done"], ["queued"]]


def test_how_far_runs_are_is_known_of_many_at_once(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    running, waiting = ledger.queue.submit([ask("a"), ask("b")])
    claim(ledger)
    progress_of = ledger.history.progress([running.run_id, waiting.run_id, "none"])
    assert {run_id: (each.status, each.last_event) for run_id, each in progress_of.items()} == {
        running.run_id: ("running", 2),
        waiting.run_id: ("queued", 1),
    }
    assert ledger.history.progress([]) == {}


# History


def test_pages_are_of_the_newest_first_and_each_goes_on_where_the_last_one_ended(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    for number in range(7):
        ledger.queue.submit([ask(str(number))])
    pages, before = [], None
    while page := ledger.history.page(before=before, limit=3):
        pages.append(prompts(page))
        before = page[-1].run_id
        ledger.queue.submit([ask("newer")])  # moves no page
    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


def test_a_page_holds_the_statuses_that_are_asked_for(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(max_batch=1)
    first, _, _, fourth = ledger.queue.submit([ask(prompt) for prompt in "abcd"])
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    claim(ledger)
    ledger.queue.cancel(fourth.run_id)
    page = ledger.history.page
    assert prompts(page()) == ["d", "c", "b", "a"]
    assert [run.position for run in page()] == [None, 1, None, None]
    assert prompts(page(statuses=["queued"])) == ["c"]
    assert prompts(page(statuses=["running", "succeeded"])) == ["b", "a"]
    assert prompts(page(statuses=["running", "succeeded"], limit=1)) == ["b"]
    assert prompts(page(statuses=["succeeded"], before=fourth.run_id)) == ["a"]
    assert page(before=first.run_id) == []
    assert page(statuses=["failed"]) == []
    assert page()[-1] == ledger.history.get(first.run_id)


def test_an_estimate_is_of_the_latest_like_runs_that_succeeded(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger(max_queue=100)
    like = ledger.queue.submit([ask(str(number)) for number in range(11)])
    others = ledger.queue.submit([ask("else", max_tokens=9), ask("else", seed=9)])
    assert ledger.history.estimate(like[0]) is None
    for status, ended in (("failed", [like[0]]), ("succeeded", like[1:] + others)):
        for place, run in enumerate(ended, 1):
            took = {"status": status, "waited_seconds": 100.0, "time_seconds": 100.0 + place}
            with database.write() as connection:
                connection.execute(update(run_table).where(run_table.c.run_id == run.run_id).values(took))
    found = {"low_seconds": 1.9, "high_seconds": 9.1, "quantiles": [0.1, 0.9], "runs": 10}
    assert ledger.history.estimate(like[0]) == found
    assert ledger.history.estimate(others[0]) is None
    everything_seconds = ledger.history.estimate(None)
    assert everything_seconds is not None
    assert (everything_seconds["runs"], everything_seconds["high_seconds"]) == (12, 10.9)
    with database.write() as connection:  # the clock was set: how long it took is not known
        unknown = update(run_table).where(run_table.c.run_id.in_(ids(like[5:]))).values(waited_seconds=None)
        connection.execute(unknown)
    assert ledger.history.estimate(like[0]) is None


def test_what_is_not_there_is_said_so(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    with pytest.raises(NoSuchRun, match="There is no run none"):
        ledger.history.get("none")
    with pytest.raises(BadRequest) as caught:
        ledger.history.page(before="none")
    assert caught.value.fields["field"] == "before"


def ended_ago(ledger: Ledger, database: Database, prompt: str, seconds: float) -> Run:
    """A run that ended so many seconds ago."""
    (run,) = ledger.queue.submit([ask(prompt)])
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    _move(database, run_table, run_table.c.run_id == run.run_id, finished_at=-seconds)
    return run


def test_the_oldest_are_forgotten_when_they_are_too_many(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger(keep_runs=2)
    for prompt in "abcd":
        ended_ago(ledger, database, prompt, 120)
    ledger.history.prune()
    assert prompts(ledger.history.page()) == ["d", "c"]
    ledger.history.prune()
    assert prompts(ledger.history.page()) == ["d", "c"]


def test_what_ended_too_long_ago_is_forgotten(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger(keep_days=2)
    for prompt, days in (("old", 2.01), ("young", 1.99), ("older", 400), ("fresh", 0)):
        ended_ago(ledger, database, prompt, days * A_DAY)
    ledger.history.prune()
    assert prompts(ledger.history.page()) == ["fresh", "young"]


def test_what_has_not_or_just_ended_is_not_forgotten(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger(keep_runs=1, keep_days=0.0001, max_batch=1)
    for prompt in "abc":
        ended_ago(ledger, database, prompt, 50)
    ledger.queue.submit([ask("d"), ask("e")])
    claim(ledger)
    _move(database, run_table, run_table.c.run_id != "", accepted_at=-400 * A_DAY)
    ledger.history.prune()
    assert prompts(ledger.history.page()) == ["e", "d", "c", "b", "a"]


def test_with_a_run_its_events_its_batch_and_its_key_are_forgotten(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger(keep_days=1)
    (run,) = ledger.queue.submit([ask("a")], "key")
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    kept = ended_ago(ledger, database, "kept", 0)
    _move(database, run_table, run_table.c.run_id == run.run_id, finished_at=-2 * A_DAY)
    ledger.history.prune()
    with pytest.raises(NoSuchRun):
        ledger.history.get(run.run_id)
    assert ledger.history.events(run.run_id) == []
    runs, batches, events = everything(database)
    assert [row.run_id for row in runs] == [kept.run_id]
    assert [row.batch_id for row in batches] == [runs[0].batch_id]
    assert len(events) == len(ledger.history.events(kept.run_id)) == 3
    assert prompts(ledger.queue.submit([ask("b")], "key")) == ["b"]
    assert kinds(ledger, ledger.history.page()[0]) == ["queued"]


# Clocks


def _move(database: Database, table: Any, which: Any, **columns: float) -> None:
    """Adds seconds to what is written in the columns."""
    with database.write() as connection:
        moved = {name: table.c[name] + seconds for name, seconds in columns.items()}
        assert connection.execute(update(table).where(which).values(moved)).rowcount


def test_the_clock_of_leases_is_one_that_all_servers_share_and_goes_on(url: str, database: Database) -> None:
    def looked(at: Database) -> list[float]:
        with at.read() as connection:  # it goes on within a transaction, too
            return [at.clock(connection), at.clock(connection)]

    own = time.monotonic if url.startswith("sqlite") else time.time  # PostgreSQL runs on this host here
    with closing(Database(url)) as other:
        told = [own(), *looked(database), *looked(other), own()]
    assert told == sorted(told)
    assert told[1] < told[2]


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 400.0 * A_DAY, -400.0 * A_DAY])
def test_a_wall_clock_that_jumps_leaves_durations_unknown_and_everything_in_its_order(
    open_ledger: OpenLedger, database: Database, jump: float
) -> None:
    ledger, began, jumped = open_ledger(), time.time(), [0.0]
    wall_clock = lambda: time.time() + jumped[0]  # noqa: E731
    line = RunQueue(database, Node("node"), max_queue=10, max_batch=1, lease=20, wall_clock=wall_clock)
    (first,) = line.submit([ask("a")])
    jumped[0] += jump
    (second,) = line.submit([ask("b")])
    batch = claim(line)
    assert prompts(batch.runs) == ["a"]
    assert batch.runs[0].waited_seconds is None
    assert line.recover() == []
    assert line.beat(batch.batch_id)
    assert line.finish(batch.batch_id, answers(batch), 1)
    ended = ledger.history.get(first.run_id)
    assert (ended.status, ended.time_seconds) == ("succeeded", None)
    assert [ended.accepted_at, ended.finished_at] == pytest.approx([began, began + jump], abs=200)
    batch = claim(line)
    assert batch.runs[0].waited_seconds is not None
    jumped[0] -= jump
    line.recover([batch.batch_id])
    assert state_of(ledger, [second]) == [("queued", 1, 1)]
    assert line.cancel(second.run_id).time_seconds is None
    assert prompts(ledger.history.page()) == ["b", "a"]


def test_a_duration_is_told_where_both_clocks_agree(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    passed = {
        "both say so": (100, 100, 100),
        "a clock that is corrected slowly": (100.9, 100, 100),
        "one that is corrected slowly for long": (10_050, 10_000, 10_000),
        "one that was set": (103, 100, None),
        "one that was set back": (97, 100, None),
        "a host that began anew": (100, -A_FORTNIGHT, None),
        "all from the future": (-A_FORTNIGHT, -A_FORTNIGHT, None),
    }
    runs = ledger.queue.submit([ask(what) for what in passed])
    for run, (by_wall, by_clock, _) in zip(runs, passed.values(), strict=True):
        _move(database, run_table, run_table.c.run_id == run.run_id, accepted_at=-by_wall, accepted_clock=-by_clock)
    batch = claim(ledger)
    ledger.queue.finish(batch.batch_id, answers(batch), 1)
    for run in runs:
        ended, expected = ledger.history.get(run.run_id), passed[run.request.prompt][2]
        told = None if expected is None else pytest.approx(expected, abs=50)
        assert (ended.status, ended.waited_seconds, ended.time_seconds) == ("succeeded", told, told), run.request.prompt


# Devices


def outcome(*codes: str | None, suspect: str | None = None) -> Outcome:
    results = [Result("r", failure=Failure(code, "So.") if code else None) for code in codes]
    return Outcome(results, suspect)


def test_a_device_is_free_until_something_else_is_known(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    assert ledger.devices.get("a") == DeviceState("free", None, None)
    before = time.time()
    ledger.devices.set("a", "failed", "It does not answer.")
    known = other.devices.get("a")
    assert (known.state, known.reason) == ("failed", "It does not answer.")
    assert known.since is not None
    assert before <= known.since <= time.time()
    assert other.devices.get("b").state == "free"
    other.devices.set("a", "failed", "Again.")
    assert ledger.devices.get("a") == known
    other.devices.set("a", "free")
    assert (ledger.devices.get("a").state, ledger.devices.get("a").reason) == ("free", None)


def test_a_batch_shows_how_its_device_is(open_ledger: OpenLedger) -> None:
    devices = open_ledger().devices
    shown = {
        "a success of a free one": ("free", outcome(None), ("free", None)),
        "one success": ("suspect", outcome("crashed", None), ("free", None)),
        "a success of a failed one": ("failed", outcome(None), ("free", None)),
        "a success in doubt": ("suspect", outcome(None, suspect="New."), ("free", None)),
        "a failure": ("free", outcome("crashed"), ("free", None)),
        "a failure of one in doubt": ("suspect", outcome("crashed"), ("suspect", "Old.")),
        "a failure in doubt": ("free", outcome("crashed", suspect="New."), ("suspect", "New.")),
        "a failure of a failed one": ("failed", outcome("crashed", suspect="New."), ("failed", "Old.")),
    }
    for name, (was, _, _) in shown.items():
        devices.set(name, was, None if was == "free" else "Old.")
    for name, (_, ended, _) in shown.items():
        devices.settle(name, ended)
    known = {name: devices.get(name) for name in shown}
    assert {name: (each.state, each.reason) for name, each in known.items()} == {
        name: expected for name, (_, _, expected) in shown.items()
    }


def test_many_may_say_at_once_how_a_device_is(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    for name in "abcde":
        assert in_threads(8, partial(ledger.devices.set, name, "suspect", "A child was killed.")) == [None] * 8
        assert ledger.devices.get(name).state == "suspect"


# One moment


def test_what_one_transaction_reads_is_of_one_moment(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    counted = select(func.count()).select_from(run_table)
    with database.read() as connection:
        before = connection.execute(counted).scalar_one()
        ledger.queue.submit([ask()])
        assert connection.execute(counted).scalar_one() == before
    with database.read() as connection:
        assert connection.execute(counted).scalar_one() == before + 1


def test_what_a_transaction_has_written_is_there_when_it_has_ended_and_not_when_it_failed(
    open_ledger: OpenLedger, database: Database, tmp_path: Path
) -> None:
    ledger = open_ledger()
    (run,) = ledger.queue.submit([ask()])

    def fail() -> None:
        with database.write() as connection:
            connection.execute(update(run_table).values(status="failed"))
            raise OSError("in the middle")

    with pytest.raises(OSError, match="in the middle"):
        fail()
    assert ledger.history.get(run.run_id).status == "queued"
    with database.write() as connection:
        connection.execute(update(run_table).values(status="failed"))
        assert ledger.history.get(run.run_id).status == "queued"
    assert ledger.history.get(run.run_id).status == "failed"


def test_an_id_that_no_run_can_have_is_one_that_is_not_there(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()  # PostgreSQL's texts have no NUL
    with pytest.raises(NoSuchRun):
        ledger.history.get("\0")
    with pytest.raises(NoSuchRun):
        ledger.queue.cancel("\0")
    with pytest.raises(BadRequest):
        ledger.history.page(before="\0")
    assert ledger.history.events("\0") == []
