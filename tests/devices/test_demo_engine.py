"""The dispatcher and its loops, with a hand-written engine and a real ledger."""

from __future__ import annotations

import fcntl
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from support.echo_runner import EchoRunner
from support.waiting import join, pause, until, wait_for

from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder
from demo_api.demo.warm_child import WarmChild
from demo_api.devices.demo_engine import DemoEngine
from demo_api.devices.lock import Device, devices_of
from demo_api.devices.loop import DeviceLoop
from demo_api.errors import BadRequest, DeviceFailed, LedgerUnavailable, NoSuchRun, QueueFull, RunEnded, ShuttingDown
from demo_api.messages import Request, Run
from demo_api.queue import Ledger, new_id

Make = Callable[..., tuple[DemoEngine, EchoRunner]]


def ask(prompt: str, **fields: object) -> Request:
    return Request.model_validate({"prompt": prompt, **fields})


@pytest.fixture
def make(settings: Callable[..., Settings]) -> Iterator[Make]:
    """Makes dispatchers that are closed when the test ends; not started."""
    made = []

    def start(*engines: EchoRunner, paused: bool = False, **flags: object) -> tuple[DemoEngine, EchoRunner]:
        chosen = settings(**flags)
        used = engines or (EchoRunner(paused=paused),)
        dispatcher = DemoEngine(Ledger(chosen), used[0], used, chosen)
        made.append(dispatcher)
        return dispatcher, used[0]

    yield start
    for dispatcher in made:
        dispatcher.close()


@pytest.fixture
def loop(settings: Callable[..., Settings]) -> tuple[DeviceLoop, EchoRunner, Ledger]:
    """A loop whose body the test calls."""
    chosen = settings()
    ledger, engine = Ledger(chosen), EchoRunner()
    return DeviceLoop(ledger, devices_of(chosen)[0], engine, chosen, changed=lambda: None), engine, ledger


def response(run: Run) -> str | None:
    return run.result.answer.response if run.result and run.result.answer else None


def code(run: Run) -> str | None:
    return run.result.failure.code if run.result and run.result.failure else None


def test_runs_are_answered_in_their_order(make: Make) -> None:
    dispatcher, engine = make(max_batch=1)
    runs = dispatcher.submit([ask(str(number)) for number in range(5)])
    dispatcher.start()
    assert [response(dispatcher.wait(run.run_id)) for run in runs] == ["0", "1", "2", "3", "4"]
    assert engine.seen == [["0"], ["1"], ["2"], ["3"], ["4"]]


def test_what_waits_when_the_device_falls_free_goes_together(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    dispatcher.start()
    dispatcher.submit([ask("first")])
    engine.entered.wait(60)
    cold = [dispatcher.submit([ask(f"cold {number}", temperature=0)])[0] for number in range(2)]
    hot = [dispatcher.submit([ask(f"hot {number}", temperature=1)])[0] for number in range(2)]
    last = dispatcher.submit([ask("cold 2", temperature=0)])
    engine.let_go.set()
    for run in cold + hot + last:
        assert response(dispatcher.wait(run.run_id)) == run.request.prompt
    assert engine.seen == [["first"], ["cold 0", "cold 1", "cold 2"], ["hot 0", "hot 1"]]


def test_the_loops_body_runs_without_a_thread(loop: tuple[DeviceLoop, EchoRunner, Ledger]) -> None:
    body, engine, ledger = loop
    assert not body.has_work()
    assert body.turn() is False
    run = ledger.queue.submit([ask("a")])[0]
    assert body.has_work()
    assert body.turn() is True
    assert response(ledger.history.get(run.run_id)) == "a"
    kinds = [event.kind for _, event in ledger.history.events(run.run_id)]
    assert kinds == ["queued", "started", "phase", "done"]
    assert body.turn() is False
    assert engine.seen == [["a"]]


def test_a_device_without_a_warm_child_leaves_a_run_to_one_that_has_one(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.devices.loop.HEAD_START_SECONDS", 60)
    chosen, asked = settings(), threading.Event()
    ledger = Ledger(chosen)
    ledger.queue.submit([ask("a")])

    def is_warm_elsewhere() -> bool:
        asked.set()
        return True

    (device,) = devices_of(chosen)
    loop = DeviceLoop(ledger, device, EchoRunner(), chosen, lambda: None, is_warm_elsewhere=is_warm_elsewhere)
    loop.start()
    wait_for(asked)
    pause(0.2)
    assert ledger.queue.claim("warm", list) is not None
    loop.requeue()
    loop.close()
    assert loop.join(60)


@pytest.mark.parametrize("prompt", ["break", "unplug", "fail"])
def test_the_loop_outlives_a_run_that_cannot_be_run(make: Make, prompt: str) -> None:
    dispatcher, _ = make()
    dispatcher.start()
    broken = dispatcher.wait(dispatcher.submit([ask(prompt)])[0].run_id)
    assert (broken.status, code(broken)) == (
        "failed",
        {"break": "storage_full", "unplug": "not_set_up", "fail": "demo_failed"}[prompt],
    )
    assert broken.result is not None
    assert broken.result.failure is not None
    assert "\n" not in broken.result.failure.message
    assert response(dispatcher.wait(dispatcher.submit([ask("next")])[0].run_id)) == "next"


def test_the_loop_outlives_a_batch_that_it_cannot_claim(make: Make) -> None:
    class FullOnce(EchoRunner):
        """The disk is full when a batch is chosen, the first time."""

        is_full = True

        def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
            if self.is_full:
                self.is_full = False
                raise OSError(28, "No space left on device")
            return super().choose(runs)

    dispatcher, engine = make(FullOnce())
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    until(lambda: dispatcher.ledger.history.get(run.run_id).ended, seconds=20)
    assert engine.seen == [["a"]]


def test_the_line_is_bounded_and_says_when_to_come_back(make: Make) -> None:
    dispatcher, _ = make(max_queue=2)
    dispatcher.submit([ask("a"), ask("b")])
    with pytest.raises(QueueFull) as caught:
        dispatcher.submit([ask("one too many")])
    assert caught.value.fields["retry_after"] == 1
    assert dispatcher.ledger.queue.describe() == {"waiting": 2, "running": 0, "limit": 2}


def test_who_has_an_answer_can_ask_again_at_once(make: Make) -> None:
    dispatcher, _ = make(max_queue=1)
    dispatcher.start()
    for _ in range(100):
        assert dispatcher.wait(dispatcher.submit([ask("a")])[0].run_id).status == "succeeded"


def test_close_keeps_those_who_wait_and_puts_the_one_that_runs_back(
    make: Make, settings: Callable[..., Settings]
) -> None:
    dispatcher, engine = make(paused=True, max_batch=1)
    dispatcher.start()
    runs = dispatcher.submit([ask("runs"), ask("waits")])
    engine.entered.wait(60)
    dispatcher.close()
    for run in runs:
        with pytest.raises(ShuttingDown) as caught:
            dispatcher.wait(run.run_id)
        assert caught.value.fields["run_id"] == run.run_id
    with pytest.raises(ShuttingDown):
        dispatcher.submit([ask("late")])
    kept = [dispatcher.ledger.history.get(run.run_id) for run in runs]
    assert [(run.status, run.position, run.attempts) for run in kept] == [("queued", 1, 0), ("queued", 2, 0)]
    again, _ = make()
    again.start()
    assert [response(again.wait(run.run_id)) for run in runs] == ["runs", "waits"]


def test_a_batch_that_is_claimed_while_the_server_requeues_is_requeued_too(settings: Callable[..., Settings]) -> None:
    class Overtaken(EchoRunner):
        """The server stops while a batch is chosen."""

        def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
            body.requeue()
            return super().choose(runs)

    chosen = settings()
    ledger, engine = Ledger(chosen), Overtaken()
    body = DeviceLoop(ledger, devices_of(chosen)[0], engine, chosen, changed=lambda: None)
    run = ledger.queue.submit([ask("a")])[0]
    assert body.turn()
    kept = ledger.history.get(run.run_id)
    assert (kept.status, kept.attempts) == ("queued", 0)


def test_close_gives_what_runs_its_time(make: Make) -> None:
    dispatcher, engine = make(paused=True, drain=60)
    dispatcher.start()
    run = dispatcher.submit([ask("runs")])[0]
    engine.entered.wait(60)
    threading.Timer(0.3, engine.let_go.set).start()
    dispatcher.close()
    assert response(dispatcher.wait(run.run_id)) == "runs"
    assert engine.cancelled == []


def test_close_does_not_wait_for_the_ledger_to_end_what_runs(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    dispatcher.start()
    dispatcher.submit([ask("runs")])
    engine.entered.wait(60)
    path = dispatcher.ledger._database._url.database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        closer = threading.Thread(target=dispatcher.close)
        closer.start()
        until(lambda: [reason for _, reason in engine.cancelled] == ["shutting_down"])
    join(closer)


def test_hurry_cuts_that_time_short(make: Make) -> None:
    dispatcher, engine = make(paused=True, drain=3600)
    dispatcher.start()
    dispatcher.submit([ask("runs")])
    engine.entered.wait(60)
    threading.Timer(0.3, dispatcher.hurry).start()
    dispatcher.close()
    assert [reason for _, reason in engine.cancelled][:1] == ["shutting_down"]
    assert engine.hurried


def test_a_waiting_run_is_cancelled_at_once(make: Make) -> None:
    dispatcher, _ = make()
    run = dispatcher.submit([ask("a")])[0]
    assert dispatcher.cancel(run.run_id).status == "cancelled"
    assert dispatcher.cancel(run.run_id).status == "cancelled"
    assert dispatcher.wait(run.run_id).status == "cancelled"
    assert dispatcher.ledger.queue.describe()["waiting"] == 0


def test_in_a_batch_one_is_cancelled_and_the_child_goes_on_until_all_are(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    runs = dispatcher.submit([ask("a"), ask("b"), ask("c")])
    dispatcher.start()
    engine.entered.wait(60)
    assert dispatcher.cancel(runs[0].run_id).status == "cancelled"
    threading.Event().wait(0.6)  # three looks of the keeper
    assert engine.cancelled == []
    dispatcher.cancel(runs[1].run_id)
    dispatcher.cancel(runs[2].run_id)
    assert [dispatcher.wait(run.run_id).status for run in runs] == ["cancelled"] * 3
    for loop in dispatcher._loops:
        loop.close()
        assert loop.join(10)
    assert {reason for _, reason in engine.cancelled} == {"cancelled"}


def test_a_cancelled_run_of_a_batch_keeps_its_end_and_the_others_their_answers(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    runs = dispatcher.submit([ask("a"), ask("b")])
    dispatcher.start()
    engine.entered.wait(60)
    dispatcher.cancel(runs[0].run_id)
    engine.let_go.set()
    assert [dispatcher.wait(run.run_id).status for run in runs] == ["cancelled", "succeeded"]


def test_what_is_not_there_or_has_ended_cannot_be_cancelled(make: Make) -> None:
    dispatcher, _ = make()
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    dispatcher.wait(run.run_id)
    with pytest.raises(RunEnded):
        dispatcher.cancel(run.run_id)
    with pytest.raises(NoSuchRun):
        dispatcher.cancel("none")


def test_two_devices_run_two_batches_at_once(make: Make) -> None:
    engines = [EchoRunner(paused=True), EchoRunner(paused=True)]
    dispatcher, _ = make(*engines, devices="one; other", max_batch=1)
    dispatcher.start()
    runs = dispatcher.submit([ask("a"), ask("b")])
    assert all(engine.entered.wait(60) for engine in engines)
    assert [device["state"] for device in dispatcher.devices()] == ["busy", "busy"]
    for engine in engines:
        engine.let_go.set()
    assert [response(dispatcher.wait(run.run_id)) for run in runs] == ["a", "b"]


def test_two_servers_on_one_device_never_run_at_once(make: Make) -> None:
    (one, first), (other, second) = make(paused=True, max_batch=1), make(paused=True, max_batch=1)
    one.start()
    runs = one.submit([ask(str(number)) for number in range(4)])
    first.entered.wait(60)
    other.start()
    assert not second.entered.wait(1)
    first.let_go.set()
    second.let_go.set()
    assert [response(other.wait(run.run_id)) for run in runs] == ["0", "1", "2", "3"]
    assert sorted(first.seen + second.seen) == [["0"], ["1"], ["2"], ["3"]]


RESET_OK, RESET_BAD = f"{sys.executable} -c 0", f"{sys.executable} -c 'raise SystemExit(3)'"


def suspect(dispatcher: DemoEngine, engine: EchoRunner) -> None:
    engine.suspect = "A child was killed."
    dispatcher.wait(dispatcher.submit([ask("fail")])[0].run_id)


def state(dispatcher: DemoEngine) -> tuple[object, object]:
    (device,) = dispatcher.devices()
    return device["state"], device["reason"]


def test_a_device_that_was_not_closed_is_suspect_until_a_run_succeeds(make: Make) -> None:
    dispatcher, engine = make()
    dispatcher.start()
    suspect(dispatcher, engine)
    until(lambda: state(dispatcher) == ("suspect", "A child was killed."))
    engine.suspect = None
    dispatcher.wait(dispatcher.submit([ask("a")])[0].run_id)
    until(lambda: state(dispatcher) == ("free", None))


def test_the_doubt_about_a_device_is_written_before_its_runs_end(make: Make) -> None:
    dispatcher, engine = make()
    states = []
    dispatcher.listen(lambda run: states.append(dispatcher.ledger.devices.get("device").state))
    dispatcher.start()
    suspect(dispatcher, engine)
    until(lambda: states)
    assert states == ["suspect"]


def test_a_suspect_device_is_reset_with_the_users_command(make: Make) -> None:
    dispatcher, engine = make(reset_command=RESET_OK)
    dispatcher.start()
    suspect(dispatcher, engine)
    until(lambda: state(dispatcher) == ("free", None))


@pytest.mark.parametrize(("command", "check"), [(RESET_BAD, None), (RESET_OK, RESET_BAD), ("no-such-program", None)])
def test_a_reset_that_does_not_help_makes_the_device_failed(make: Make, command: str, check: str | None) -> None:
    dispatcher, engine = make(reset_command=command, reset_check=check, max_batch=1)
    dispatcher.start()
    waits = dispatcher.submit([ask("fail"), ask("waits")])[1]
    engine.suspect = "A child was killed."
    until(lambda: state(dispatcher)[0] == "failed")
    with pytest.raises(DeviceFailed) as caught:
        dispatcher.submit([ask("late")])
    assert "demo-api device" in caught.value.next_step
    assert dispatcher.ledger.history.get(waits.run_id).status == "queued"
    dispatcher.ledger.devices.set("device", "free")
    assert response(dispatcher.wait(waits.run_id)) == "waits"


def test_a_reset_that_a_killed_server_had_begun_is_done_again(
    make: Make, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    witness = tmp_path / "witness"
    dispatcher, _ = make(reset_command=f"touch {witness}")
    dispatcher.ledger.devices.set("device", "resetting")
    dispatcher.start()
    until(lambda: state(dispatcher) == ("free", None))
    assert witness.exists()


def test_a_killed_child_found_on_the_device_makes_it_suspect(make: Make, settings: Callable[..., Settings]) -> None:
    dispatcher, _ = make()
    left = RunFolder.create(settings().runs_dir, new_id())
    left.write(["Hello"], {"device": "device"})
    dispatcher.submit([ask("fail")])
    dispatcher.start()
    reason = f"The child of batch {left.path.name} was killed together with its server."
    until(lambda: state(dispatcher) == ("suspect", reason))
    assert not left.prompts.exists()


def test_a_batch_of_a_server_that_is_gone_is_run_again_at_once(loop: tuple[DeviceLoop, EchoRunner, Ledger]) -> None:
    body, engine, ledger = loop
    run = ledger.queue.submit([ask("a")])[0]
    ledger.queue.claim("device", lambda runs: list(runs))
    assert body.turn()
    ended = ledger.history.get(run.run_id)
    assert (response(ended), ended.attempts) == ("a", 2)
    assert engine.seen == [["a"]]


def test_a_run_is_alone_on_its_last_attempt(loop: tuple[DeviceLoop, EchoRunner, Ledger]) -> None:
    body, engine, ledger = loop
    ledger.queue.submit([ask("a"), ask("b")])
    for _ in range(2):  # two servers that went down with both
        ledger.queue.claim("device", list)
        ledger.queue.recover(ledger.queue.batches("device", "open"))
    ledger.queue.submit([ask("c"), ask("d")])
    until(lambda: not body.turn())
    assert engine.seen == [["a"], ["b"], ["c", "d"]]


def test_a_batch_of_a_server_that_lives_is_left_alone(loop: tuple[DeviceLoop, EchoRunner, Ledger]) -> None:
    body, engine, ledger = loop
    ledger.queue.submit([ask("a")])
    with body.device.try_lock() as holding:  # type: ignore[union-attr]
        ledger.queue.claim("device", lambda runs: list(runs))
        holding.hand_to_child()  # and the child is gone
        assert not body.turn()
    assert engine.seen == []
    assert body.turn()


def test_results_of_a_batch_that_was_lost_count_for_nothing(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    engine.entered.wait(60)
    (batch,) = dispatcher.ledger.queue.batches("device", "open")
    dispatcher.ledger.queue.recover([batch])
    again = dispatcher.ledger.queue.claim("other", lambda runs: list(runs))
    assert again is not None
    engine.let_go.set()
    for loop in dispatcher._loops:
        loop.close()
        assert loop.join(10)
    assert dispatcher.ledger.history.get(run.run_id).status == "running"
    assert dispatcher.ledger.history.get(run.run_id).batch_id == again.batch_id


def test_a_loop_that_lost_its_batch_ends_the_child(make: Make) -> None:
    dispatcher, engine = make(paused=True, lease=1)
    dispatcher.start()
    dispatcher.submit([ask("a")])
    engine.entered.wait(60)
    (batch,) = dispatcher.ledger.queue.batches("device", "open")
    dispatcher.ledger.queue.recover([batch])
    until(lambda: batch in dict(engine.cancelled))


def test_a_lease_is_kept_for_as_long_as_the_batch_runs(make: Make) -> None:
    dispatcher, engine = make(paused=True, lease=1)
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    engine.entered.wait(60)
    threading.Event().wait(2.5)
    assert dispatcher.ledger.queue.recover() == []
    engine.let_go.set()
    assert dispatcher.wait(run.run_id).attempts == 1


def test_who_waits_in_another_process_is_told(make: Make) -> None:
    (one, _), (other, _) = make(), make()
    run = other.submit([ask("a")])[0]
    threading.Timer(0.3, one.start).start()
    assert response(other.wait(run.run_id)) == "a"


def test_a_follower_gets_the_last_event_although_the_ledger_could_not_be_read_for_a_while(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher, engine = make(paused=True)
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    following = dispatcher.follow(run.run_id, 0)
    path = dispatcher.ledger._database._url.database
    assert path is not None

    def read_to(kind: str) -> None:
        deadline = time.monotonic() + 20
        while (event := next(following)) is None or event[1].kind != kind:
            assert time.monotonic() < deadline, f"{kind} never came"

    read_to("phase")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
        other.execute("ALTER TABLE runs RENAME TO runs_elsewhere")
        until(lambda: "demo_api.queue.waiters" in {record.name for record in caplog.records}, seconds=20)
        other.execute("ALTER TABLE runs_elsewhere RENAME TO runs")
    engine.let_go.set()
    read_to("done")


def test_a_client_that_hangs_up_cancels_its_run_if_that_is_asked_for(make: Make) -> None:
    dispatcher, _ = make(paused=True)
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    assert dispatcher.wait(run.run_id, is_gone=lambda: True).status == "cancelled"


def test_nobody_waits_for_a_run_that_is_not_there(make: Make) -> None:
    dispatcher, _ = make()
    with pytest.raises(NoSuchRun):
        dispatcher.wait("none")


def test_no_thread_is_left_when_nobody_waits(make: Make) -> None:
    before = set(threading.enumerate())
    dispatcher, _ = make()
    dispatcher.start()
    dispatcher.wait(dispatcher.submit([ask("a")])[0].run_id)
    dispatcher.close()
    names = ("device-", "watcher", "monitor-")
    until(lambda: not [each for each in {*threading.enumerate()} - before if each.name.startswith(names)])


def test_a_result_that_cannot_be_kept_is_told_to_who_waits_and_kept_later(make: Make) -> None:
    dispatcher, engine = make(paused=True)
    dispatcher.start()
    run = dispatcher.submit([ask("a")])[0]
    engine.entered.wait(60)
    path = dispatcher.ledger._database._url.database
    assert path is not None
    with sqlite3.connect(path) as sabotage:  # as a full disk does: every further event or end of a run is refused
        sabotage.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    engine.let_go.set()
    with pytest.raises(LedgerUnavailable) as caught:
        dispatcher.wait(run.run_id)
    assert caught.value.fields["run_id"] == run.run_id
    with sqlite3.connect(path) as mended:
        mended.execute("DROP TRIGGER full")
    until(lambda: dispatcher.ledger.history.get(run.run_id).ended)
    assert response(dispatcher.wait(run.run_id)) == "a"


def test_bad_requests_are_errors_of_the_family() -> None:
    assert BadRequest("No.", field="prompt").body() == {
        "success": False,
        "error": "No.",
        "code": "bad_request",
        "next_step": BadRequest.next_step,
        "field": "prompt",
    }


def test_a_device_is_not_given_up_for_the_time_in_which_nobody_wanted_it(
    make: Make, settings: Callable[..., Settings]
) -> None:
    dispatcher, _ = make(stop_grace=1, run_timeout=4)
    (device,) = devices_of(settings())
    hold = device.try_lock()
    assert hold is not None
    device.note_waiting("another server's child")
    dispatcher.start()
    unwanted = dispatcher.submit([ask("wanted no more")])[0]
    threading.Event().wait(0.3)
    dispatcher.cancel(unwanted.run_id)
    threading.Event().wait(4)
    run = dispatcher.submit([ask("Hello")])[0]
    threading.Event().wait(0.3)
    assert device.waiting() == "another server's child"
    hold.__exit__(None, None, None)
    assert response(dispatcher.wait(run.run_id)) == "Hello"


def test_a_batch_that_is_told_to_a_waiting_child_at_this_moment_is_not_lost(settings: Callable[..., Settings]) -> None:
    chosen = settings()
    ledger, engine = Ledger(chosen), EchoRunner()
    theirs = Device("device", chosen.state_dir)
    shares = []

    class Watched(Device):
        def has_server(self) -> bool:
            seen = super().has_server()
            if not shares:  # now the server of the child that waits comes
                shares.append(theirs.share())
                theirs.take_waiting()
                assert ledger.queue.claim("device", engine.choose)
            return seen

    watched = Watched("device", chosen.state_dir)
    with open(chosen.state_dir / "device.lock", "w") as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        theirs.note_waiting("their child")
        ledger.queue.submit([ask("Hello")])
        assert not DeviceLoop(ledger, watched, engine, chosen, changed=lambda: None).turn()
    assert ledger.queue.batches("device", "lost") == []
    assert len(ledger.queue.batches("device", "open")) == 1
    shares[0].__exit__(None, None, None)
