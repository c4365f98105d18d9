"""What a batch tells while its child runs, and whether it is still wanted; with a real ledger."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.waiting import join, until

from demo_api.config import Settings
from demo_api.devices.batch_monitor import BatchMonitor, EventBuffer
from demo_api.messages import Answer, Batch, Event, Request, Result, Run
from demo_api.queue import Ledger

HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
WRITE_SECONDS = 0.1  # half of the real ones, for tests that are done soon


def phase(name: str) -> Event:
    return Event("phase", 1.5, {"phase": name})


def progress(iteration: int) -> Event:
    return Event("progress", 2.5, {"iteration": iteration, "tokens_per_second_per_user": 64.3})


def text(tail: str, at: float = 3.5) -> Event:
    return Event("text", at, {"user": 0, "tail": tail})


def added(piece: str, at: float = 3.5) -> Event:
    return Event("text", at, {"added": piece, "best_effort": True})


# The recorder


def batch_of(*prompts: str) -> Batch:
    runs = [Run(f"run-{place}", Request.model_validate({"prompt": prompt})) for place, prompt in enumerate(prompts)]
    return Batch("batch", runs)


@pytest.fixture
def recorder() -> EventBuffer:
    """Of a batch of two runs, run-0 and run-1."""
    return EventBuffer(batch_of("Name a fruit.", "Name a planet."))


def test_every_phase_is_kept_in_order(recorder: EventBuffer) -> None:
    names = ["startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "output"]
    for name in names:
        recorder("run-0", phase(name))
    assert recorder.take() == {"run-0": [phase(name) for name in names]}


def test_only_the_latest_progress_is_kept(recorder: EventBuffer) -> None:
    for iteration in range(5):
        recorder("run-0", progress(iteration))
    assert recorder.take() == {"run-0": [progress(4)]}
    recorder("run-0", progress(5))
    assert recorder.take() == {"run-0": [progress(5)]}


def test_texts_are_told_by_what_they_add_and_joined(recorder: EventBuffer) -> None:
    shown = f"Name a fruit.{HEADER}"
    for at, tail in enumerate(["An", "An apple", "An apple"]):
        recorder("run-0", text(shown + tail, float(at)))
    assert recorder.take() == {"run-0": [added("An apple", 1.0)]}
    recorder("run-0", text(f"{shown}An apple.", 4.0))
    assert recorder.take() == {"run-0": [added(".", 4.0)]}


def test_a_text_that_adds_nothing_is_not_told(recorder: EventBuffer) -> None:
    recorder("run-0", text(f"Name a fruit.{HEADER}"))
    assert recorder.take() == {}


def test_kinds_keep_the_order_in_which_they_came_first(recorder: EventBuffer) -> None:
    shown = f"Name a fruit.{HEADER}"
    told = [phase("decode"), progress(0), text(f"{shown}An"), progress(1), text(f"{shown}An apple"), phase("output")]
    for event in told:
        recorder("run-0", event)
    assert recorder.take() == {"run-0": [phase("decode"), progress(1), added("An apple"), phase("output")]}


def test_what_was_taken_is_not_taken_again(recorder: EventBuffer) -> None:
    recorder("run-0", phase("decode"))
    assert recorder.take() != {}
    assert recorder.take() == {}


def test_what_is_put_back_comes_before_what_has_come_since(recorder: EventBuffer) -> None:
    shown = f"Name a fruit.{HEADER}"
    for event in (phase("prefill"), phase("decode"), progress(0), text(f"{shown}An apple")):
        recorder("run-0", event)
    refused = recorder.take()
    for event in (progress(1), text(f"{shown}An apple is"), phase("output")):
        recorder("run-0", event)
    recorder("run-1", phase("decode"))
    recorder.put_back(refused)
    together = [phase("prefill"), phase("decode"), progress(1), added("An apple is"), phase("output")]
    assert recorder.take() == {"run-0": together, "run-1": [phase("decode")]}


def test_a_users_text_is_told_to_its_own_run_only(recorder: EventBuffer) -> None:
    fruit, planet = f"Name a fruit.{HEADER}", f"Name a planet.{HEADER}"
    for one, other in [("An", "Mars"), ("An apple", "Mars is"), ("An apple.", "Mars is one")]:
        recorder("run-0", text(fruit + one))
        recorder("run-1", text(planet + other))
    assert recorder.take() == {"run-0": [added("An apple.")], "run-1": [added("Mars is one")]}


def test_runs_with_the_same_prompt_have_their_own_texts() -> None:
    recorder = EventBuffer(batch_of("Hi", "Hi"))
    for one, other in [("Hello", "Hey"), ("Hello you", "Hey there")]:
        recorder("run-1", text(f"Hi{HEADER}{other}"))
        recorder("run-0", text(f"Hi{HEADER}{one}"))
    assert recorder.take() == {"run-0": [added("Hello you")], "run-1": [added("Hey there")]}


@hypothesis_settings(max_examples=100)
@given(st.lists(st.sampled_from(["phase", "progress", "text", "take"])))
def test_the_same_is_told_however_often_it_is_taken(steps: list[str]) -> None:
    recorder, told, said = EventBuffer(batch_of("Hi")), [], f"Hi{HEADER}"
    for number, step in enumerate([*steps, "take"]):
        said += f" {number}" * (step == "text")
        if step == "take":
            told += recorder.take().get("run-0", [])
        else:
            recorder("run-0", {"phase": phase(str(number)), "progress": progress(number)}.get(step) or text(said[-97:]))
    numbers = {kind: [number for number, step in enumerate(steps) if step == kind] for kind in ("phase", "progress")}
    assert [event.data["phase"] for event in told if event.kind == "phase"] == [str(each) for each in numbers["phase"]]
    assert [event.data["iteration"] for event in told if event.kind == "progress"][-1:] == numbers["progress"][-1:]
    assert "".join([str(event.data["added"]) for event in told if event.kind == "text"]) == said[len(f"Hi{HEADER} ") :]


def test_each_phase_is_logged_with_its_run(recorder: EventBuffer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "demo_api.devices.batch_monitor"):
        recorder("run-1", phase("decode"))
        recorder("run-1", progress(0))
    assert [record.getMessage() for record in caplog.records] == ["run run-1: decode"]


def test_nothing_is_lost_between_two_threads() -> None:
    recorder, over, taken = EventBuffer(batch_of("Hi")), threading.Event(), []

    def take() -> None:
        while not over.is_set():
            taken.extend(recorder.take().get("run-0", []))
        taken.extend(recorder.take().get("run-0", []))

    reader = threading.Thread(target=take)
    reader.start()
    said = ""
    for number in range(3000):
        recorder("run-0", phase(str(number)))
        said += f" {number}"
        whole = f"Hi{HEADER}{said}"
        recorder("run-0", text("..." + whole[-97:] if len(whole) > 100 else whole))
    over.set()
    join(reader)
    assert [event.data["phase"] for event in taken if event.kind == "phase"] == [str(number) for number in range(3000)]
    assert "".join([str(event.data["added"]) for event in taken if event.kind == "text"]) == said.strip()


# The keeper


class Scene:
    """A batch that was claimed from a real ledger, with whatever its keeper does."""

    def __init__(self, settings: Settings, prompts: list[str]) -> None:
        self.path = settings.state_dir / "ledger.db"
        self.settings = settings
        self.ledger = Ledger(settings)
        self.line, self.history = self.ledger.queue, self.ledger.history
        self.line.submit([Request.model_validate({"prompt": prompt}) for prompt in prompts])
        claimed = self.line.claim("device", list)
        assert claimed is not None
        self.batch = claimed
        self.ids = [run.run_id for run in claimed.runs]
        self.recorder = EventBuffer(claimed)
        self.reasons: list[str] = []
        self.ended_users: list[list[int]] = []
        self.changes = 0

    def keeper(self) -> BatchMonitor:
        return BatchMonitor(
            self.line,
            self.batch,
            self.recorder,
            lease=self.settings.lease,
            cancel=self.reasons.append,
            end_users=self.ended_users.append,
            changed=self._count,
        )

    def told(self, place: int = 0) -> list[Event]:
        """What the ledger has of this run's phases, progress and texts."""
        events = [event for _, event in self.history.events(self.ids[place])]
        return [event for event in events if event.kind in ("phase", "progress", "text")]

    def execute(self, *statements: str) -> None:
        """Does something to the ledger behind its back."""
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def lease(self) -> float:
        """Until when the batch is this server's."""
        with closing(sqlite3.connect(self.path, timeout=60)) as connection:
            (until,) = connection.execute("SELECT lease_until FROM batches").fetchone()
        return float(until)

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
def scene(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    """Makes scenes whose ledgers are closed when the test ends."""
    monkeypatch.setattr("demo_api.devices.batch_monitor.WRITE_SECONDS", WRITE_SECONDS)
    made: list[Scene] = []

    def make(*prompts: str, **flags: object) -> Scene:
        made.append(Scene(settings(**flags), list(prompts or ["Hi"])))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()


def pause(seconds: float = WRITE_SECONDS * 3) -> None:
    """For what must not happen meanwhile: the keeper looks twice at least."""
    threading.Event().wait(seconds)


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("monitor-")]


def test_events_are_in_the_ledger_while_the_batch_runs(scene: Callable[..., Scene]) -> None:
    here = scene("Name a fruit.", "Name a planet.")
    with here.keeper():
        here.recorder(here.ids[0], phase("decode"))
        here.recorder(here.ids[1], text(f"Name a planet.{HEADER}Mars"))
        until(lambda: here.told(0) and here.told(1))
        assert (here.told(0), here.told(1)) == ([phase("decode")], [added("Mars")])
        here.recorder(here.ids[0], progress(3))
        until(lambda: here.told(0) == [phase("decode"), progress(3)])
    assert here.told(1) == [added("Mars")]
    assert here.reasons == []


def test_who_waits_is_rung_for_after_the_ledger_was_told_and_not_otherwise(scene: Callable[..., Scene]) -> None:
    here = scene()
    with here.keeper():
        pause()
        assert here.changes == 0
        here.recorder(here.ids[0], phase("decode"))
        until(lambda: here.changes)
        assert here.told() == [phase("decode")]
    assert here.changes == 1


@pytest.mark.parametrize("piece", ["\U0001f600 café", "half a pair: \ud83d!", "a \x00 b"], ids=ascii)
def test_every_text_can_be_told(scene: Callable[..., Scene], piece: str) -> None:
    here = scene()
    with here.keeper():
        here.recorder(here.ids[0], text(f"Hi{HEADER}{piece}"))
    assert here.told() == [added(piece)]


def test_many_events_cost_few_writes(scene: Callable[..., Scene]) -> None:
    here, begun = scene(), time.monotonic()
    with here.keeper():
        for iteration in range(60):
            here.recorder(here.ids[0], progress(iteration))
            pause(0.01)
    assert 2 <= len(here.told()) <= (time.monotonic() - begun) / WRITE_SECONDS + 1
    assert here.told()[-1] == progress(59)


def test_the_first_text_of_each_run_is_written_at_once(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.devices.batch_monitor.WRITE_SECONDS", 600)
    here = scene("one", "other")
    with here.keeper():
        for place, run_id in enumerate(here.ids):
            here.recorder(run_id, Event("text", 1.5, {"user": 0, "added": "first"}))
            until(partial(here.told, place))
        here.recorder(here.ids[0], Event("text", 1.5, {"user": 0, "added": "second"}))
        pause()
        assert [event.data["added"] for event in here.told() if event.kind == "text"] == ["first"]


def test_the_last_events_are_written_at_the_end(scene: Callable[..., Scene]) -> None:
    here = scene()
    with here.keeper():
        here.recorder(here.ids[0], phase("output"))
    assert here.told() == [phase("output")]
    assert here.changes == 1
    assert keepers() == []


def test_they_are_written_when_the_batch_broke_down_too(scene: Callable[..., Scene]) -> None:
    here = scene()

    def break_down() -> None:
        with here.keeper():
            here.recorder(here.ids[0], phase("load"))
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        break_down()
    assert here.told() == [phase("load")]
    assert keepers() == []


# Whether the batch is still wanted


def test_a_batch_is_cancelled_when_all_of_its_runs_are_and_not_before(scene: Callable[..., Scene]) -> None:
    here = scene("a", "b")
    with here.keeper():
        here.line.cancel(here.ids[0])
        until(lambda: here.ended_users)
        assert here.reasons == []
        here.line.cancel(here.ids[1])
        until(lambda: here.reasons)
    assert here.ended_users == [[0]], "the other one ends with its batch"
    assert set(here.reasons) == {"cancelled"}


def test_a_run_that_was_cancelled_elsewhere_is_noticed(scene: Callable[..., Scene]) -> None:
    here = scene()
    other = Ledger(here.settings)
    with here.keeper():
        other.queue.cancel(here.ids[0])
        until(lambda: here.reasons)
    other.close()
    assert set(here.reasons) == {"cancelled"}


def test_a_cancelled_run_is_told_nothing_more_and_the_others_are(scene: Callable[..., Scene]) -> None:
    here = scene("a", "b")
    with here.keeper():
        here.line.cancel(here.ids[0])
        for run_id in here.ids:
            here.recorder(run_id, phase("decode"))
    assert (here.told(0), here.told(1)) == ([], [phase("decode")])


def put_back(here: Scene, other: Ledger) -> None:
    assert other.queue.recover([here.batch.batch_id]) == [here.batch.batch_id]


def claimed_again(here: Scene, other: Ledger) -> None:
    put_back(here, other)
    assert other.queue.claim("device", list) is not None


def answered(here: Scene, other: Ledger) -> None:
    put_back(here, other)
    again = other.queue.claim("device", list)
    assert again is not None
    assert other.queue.finish(again.batch_id, [Result(run.run_id, answer=Answer("a", 1)) for run in again.runs], 1.0)


@pytest.mark.parametrize("lose", [put_back, claimed_again, answered], ids=["put back", "claimed again", "answered"])
def test_a_batch_that_was_lost_to_another_server_is_ended_as_lost(
    scene: Callable[..., Scene], lose: Callable[[Scene, Ledger], None]
) -> None:
    here = scene(lease=1)
    other = Ledger(here.settings)
    with here.keeper():
        lose(here, other)
        until(lambda: here.reasons)
    other.close()
    assert here.reasons[0] == "child_lost"  # a child is stopped for the first reason that it is given


def test_a_lost_batch_that_stopped_telling_tells_nothing_more(scene: Callable[..., Scene]) -> None:
    here = scene()
    other = Ledger(here.settings)
    claimed_again(here, other)
    with here.keeper():
        here.recorder(here.ids[0], phase("decode"))
    other.close()
    assert here.told() == []


def test_the_lease_is_prolonged_for_as_long_as_the_batch_runs(scene: Callable[..., Scene]) -> None:
    here = scene(lease=3)
    leases = [here.lease()]
    with here.keeper():
        for _ in range(2):
            until(lambda: here.lease() > leases[-1])
            leases.append(here.lease())
    assert all(0.7 < after - before < 3 for before, after in pairwise(leases))
    pause()
    assert here.lease() == leases[-1]
    assert here.reasons == []


# A ledger that cannot be used

REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
ACCEPT = "DROP TRIGGER refuse"


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_ledger_that_refuses_events_for_a_while_does_not_stop_the_run(
    scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    here = scene()
    here.execute(REFUSE)
    with here.keeper():
        here.recorder(here.ids[0], phase("decode"))
        until(lambda: warnings(caplog))
        assert here.told() == []
        here.execute(ACCEPT)
        here.recorder(here.ids[0], progress(7))
        until(lambda: progress(7) in here.told())
    assert here.reasons == []
    assert {(record.name, record.exc_info) for record in warnings(caplog)} == {("demo_api.devices.batch_monitor", None)}
    assert here.batch.batch_id in warnings(caplog)[0].getMessage()


def test_what_could_not_be_told_is_told_when_it_can_be(
    scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    here, shown = scene(), f"Hi{HEADER}"
    here.execute(REFUSE)
    with here.keeper():
        for event in (phase("decode"), progress(0), text(f"{shown}An apple")):
            here.recorder(here.ids[0], event)
        until(lambda: warnings(caplog))
        for event in (progress(1), text(f"{shown}An apple is"), phase("output")):
            here.recorder(here.ids[0], event)
        here.execute(ACCEPT)
    told = here.told()
    assert [event for event in told if event.kind == "phase"] == [phase("decode"), phase("output")]
    assert [event for event in told if event.kind == "progress"][-1] == progress(1)
    assert "".join([str(event.data["added"]) for event in told if event.kind == "text"]) == "An apple is"


def test_a_ledger_that_never_comes_back_does_not_stop_the_run(
    scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    here = scene(lease=1)
    here.execute("ALTER TABLE runs RENAME TO runs_elsewhere", "ALTER TABLE batches RENAME TO batches_elsewhere")
    with here.keeper():
        here.recorder(here.ids[0], phase("decode"))
        until(lambda: warnings(caplog))
        pause()
        assert len(keepers()) == 1
    assert keepers() == []
    assert here.reasons == []


def test_a_run_does_not_wait_for_a_ledger_that_somebody_holds(scene: Callable[..., Scene]) -> None:
    here = scene()
    with closing(sqlite3.connect(here.path, isolation_level=None)) as holder, here.keeper():
        holder.execute("BEGIN IMMEDIATE")
        here.recorder(here.ids[0], phase("decode"))
        pause()
        for iteration in range(100):
            here.recorder(here.ids[0], progress(iteration))
        assert here.told() == []
        holder.execute("ROLLBACK")
        until(lambda: here.told() == [phase("decode"), progress(99)])
    assert here.reasons == []


def test_a_ledger_that_is_held_for_too_long_is_given_up_only_until_the_next_time(
    scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 0.1)
    here = scene()
    with closing(sqlite3.connect(here.path, isolation_level=None)) as holder, here.keeper():
        holder.execute("BEGIN IMMEDIATE")
        here.recorder(here.ids[0], phase("decode"))
        until(lambda: warnings(caplog))
        holder.execute("ROLLBACK")
        here.recorder(here.ids[0], phase("output"))
        until(lambda: phase("output") in here.told())
    assert "locked" in warnings(caplog)[0].getMessage()
    assert here.reasons == []
