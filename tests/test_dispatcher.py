from __future__ import annotations

import threading

import pytest
from echo_engine import EchoEngine

from demo_api.dispatcher import Dispatcher
from demo_api.errors import BadRequest, DemoApiError, QueueFull, SetupError, ShuttingDown
from demo_api.messages import Answer, Event, Request


def test_runs_are_answered_in_their_order() -> None:
    engine = EchoEngine()
    dispatcher = Dispatcher(engine, max_queue=10)
    pending = [dispatcher.submit(Request(prompt=str(number))) for number in range(5)]
    answers = [each.result.result(10).answer for each in pending]
    assert [answer.response for answer in answers if answer] == ["0", "1", "2", "3", "4"]
    assert engine.seen == ["0", "1", "2", "3", "4"]
    dispatcher.close()


def test_the_loops_body_runs_without_a_thread() -> None:
    events: list[tuple[str, Event]] = []
    dispatcher = Dispatcher(EchoEngine(), max_queue=10, listener=lambda *event: events.append(event))
    dispatcher._start_thread = lambda: None  # type: ignore[method-assign]
    pending = dispatcher.submit(Request(prompt="a"))
    assert not pending.result.done()
    assert dispatcher.run_next() is True
    assert pending.result.done()
    assert events == [(pending.run.run_id, Event("phase", None, {"phase": "decode"}))]
    dispatcher.close()
    assert dispatcher.run_next() is False


def test_the_line_is_bounded_and_says_when_to_come_back() -> None:
    engine = EchoEngine(hold=True)
    dispatcher = Dispatcher(engine, max_queue=2)
    accepted = [dispatcher.submit(Request(prompt="first"))]
    while dispatcher.describe()["running"] == 0:
        threading.Event().wait(0.01)
    accepted += [dispatcher.submit(Request(prompt="waits")) for _ in range(2)]
    with pytest.raises(QueueFull) as caught:
        dispatcher.submit(Request(prompt="one too many"))
    assert isinstance(caught.value.fields["retry_after"], int)
    assert caught.value.fields["retry_after"] >= 1
    assert dispatcher.describe() == {"waiting": 2, "running": 1, "limit": 2}
    engine.let_go.set()
    assert [each.result.result(10).answer for each in accepted] == [Answer(p, 1) for p in ("first", "waits", "waits")]
    dispatcher.close()


def test_as_many_as_may_wait_and_one_more_are_accepted_however_fast_they_come() -> None:
    for _ in range(50):
        engine = EchoEngine(hold=True)
        dispatcher = Dispatcher(engine, max_queue=3)
        accepted = [dispatcher.submit(Request(prompt="x")) for _ in range(4)]
        with pytest.raises(QueueFull):
            dispatcher.submit(Request(prompt="one too many"))
        engine.let_go.set()
        for each in accepted:
            each.result.result(10)
        dispatcher.close()


def test_who_has_an_answer_can_ask_again_at_once() -> None:
    dispatcher = Dispatcher(EchoEngine(), max_queue=0)
    for _ in range(500):
        dispatcher.submit(Request(prompt="a")).result.result(10)
        assert dispatcher.describe()["running"] == 0
    dispatcher.close()


def test_160_at_once_with_room_for_100_accept_exactly_those() -> None:
    engine = EchoEngine(hold=True)
    dispatcher = Dispatcher(engine, max_queue=100)
    first = dispatcher.submit(Request(prompt="first"))
    while dispatcher.describe()["running"] == 0:
        threading.Event().wait(0.01)
    refused = []

    def submit() -> None:
        try:
            dispatcher.submit(Request(prompt="x"))
        except QueueFull as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(160)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.describe()["waiting"] == 100
    assert len(refused) == 60
    engine.let_go.set()
    first.result.result(10)
    dispatcher.close()


def test_one_run_is_accepted_when_none_may_wait_and_the_device_is_free() -> None:
    dispatcher = Dispatcher(EchoEngine(), max_queue=0)
    assert dispatcher.submit(Request(prompt="a")).result.result(10).answer == Answer("a", 1)
    dispatcher.close()


@pytest.mark.parametrize(
    ("prompt", "raised", "told"), [("break", DemoApiError, "No space left"), ("unplug", SetupError, "gone")]
)
def test_the_loop_outlives_a_run_that_cannot_be_run(prompt: str, raised: type[Exception], told: str) -> None:
    dispatcher = Dispatcher(EchoEngine(), max_queue=10)
    broken = dispatcher.submit(Request(prompt=prompt))
    with pytest.raises(raised, match=told):
        broken.result.result(10)
    assert dispatcher.submit(Request(prompt="next")).result.result(10).answer == Answer("next", 1)
    dispatcher.close()


def test_close_fails_those_who_wait_ends_the_one_that_runs_and_refuses_more() -> None:
    dispatcher = Dispatcher(EchoEngine(hold=True), max_queue=10)
    runs = dispatcher.submit(Request(prompt="runs"))
    while dispatcher.describe()["running"] == 0:
        threading.Event().wait(0.01)
    waits = dispatcher.submit(Request(prompt="waits"))
    dispatcher.close()
    failure = runs.result.result(0).failure
    assert failure is not None
    assert failure.code == "cancelled"
    with pytest.raises(ShuttingDown):
        waits.result.result(0)
    with pytest.raises(ShuttingDown):
        dispatcher.submit(Request(prompt="late"))
    dispatcher.close()


def test_retry_after_is_the_median_of_the_measured_runs_less_what_has_passed() -> None:
    engine = EchoEngine()
    dispatcher = Dispatcher(engine, max_queue=0)
    dispatcher.submit(Request(prompt="short")).result.result(10)
    dispatcher._run_seconds.extend([3600.0, 3600.0])
    engine.let_go.clear()
    dispatcher.submit(Request(prompt="runs"))
    with pytest.raises(QueueFull) as caught:
        dispatcher.submit(Request(prompt="one too many"))
    assert 3500 < int(str(caught.value.fields["retry_after"])) <= 3600
    dispatcher.close()


def test_bad_requests_are_errors_of_the_family() -> None:
    assert BadRequest("No.", field="prompt").body() == {
        "success": False,
        "error": "No.",
        "code": "bad_request",
        "next_step": BadRequest.next_step,
        "field": "prompt",
    }
