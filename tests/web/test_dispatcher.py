"""Threads for requests: who looks does not wait for who works, and who waits for a run does not count as working."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from support.waiting import until, wait_for

from demo_api.web import dispatcher
from demo_api.web.dispatcher import Dispatcher, leave_turn


@dataclass
class Asked:
    """A connection with one request, which does this."""

    command: str
    work: Callable[[], object]
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    @property
    def requests(self) -> list[object]:
        return [SimpleNamespace(command=self.command)]

    def service(self) -> None:
        try:
            self.work()
        finally:
            self.ended.set()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def endless_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, who works keeps its turn."""
    monkeypatch.setattr(dispatcher, "_LONG_SECONDS", 1000.0)


@pytest.fixture
def threads(let_go: threading.Event) -> Iterator[Dispatcher]:
    made = Dispatcher(50)
    yield made
    let_go.set()
    made.shutdown()


def test_who_looks_is_served_while_many_work(threads: Dispatcher, let_go: threading.Event) -> None:
    crowd = [Asked("POST", lambda: wait_for(let_go)) for _ in range(40)]
    for each in crowd:
        threads.add_task(each)
    look = Asked("GET", lambda: None)
    threads.add_task(look)
    wait_for(look.ended, seconds=30)
    assert not any(each.ended.is_set() for each in crowd)
    let_go.set()
    for each in crowd:
        wait_for(each.ended, seconds=30)


def test_who_waits_for_a_run_gives_its_turn_to_the_next(threads: Dispatcher, let_go: threading.Event) -> None:
    working: list[str] = []

    def wait_for_run() -> None:
        working.append("one")
        leave_turn()
        leave_turn()  # a second time it has none
        wait_for(let_go)

    crowd = [Asked("POST", wait_for_run) for _ in range(40)]
    for each in crowd:
        threads.add_task(each)
    until(lambda: len(working) == 40)


@pytest.mark.usefixtures("endless_turns")
def test_no_more_than_a_few_work_at_the_same_time(threads: Dispatcher, let_go: threading.Event) -> None:
    working: list[str] = []

    def work() -> None:
        working.append("one")
        wait_for(let_go)

    crowd = [Asked("POST", work) for _ in range(20)]
    for each in crowd:
        threads.add_task(each)
    look = Asked("GET", lambda: None)
    threads.add_task(look)
    wait_for(look.ended, seconds=30)
    until(lambda: len(working) == 4)
    let_go.set()
    for each in crowd:
        wait_for(each.ended, seconds=30)
    assert len(working) == 20


def test_a_request_that_breaks_down_leaves_the_others_their_turns(threads: Dispatcher) -> None:
    for _ in range(10):
        threads.add_task(Asked("POST", lambda: 1 / 0))
    last = Asked("POST", lambda: None)
    threads.add_task(last)
    wait_for(last.ended, seconds=30)


def test_threads_that_nobody_needs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_SPARE_SECONDS", 0.1)
    threads = Dispatcher(50)
    asked = Asked("GET", lambda: None)
    threads.add_task(asked)
    wait_for(asked.ended, seconds=30)
    until(lambda: threads._threads == 0)
    again = Asked("GET", lambda: None)
    threads.add_task(again)
    wait_for(again.ended, seconds=30)
    threads.shutdown()


def test_requests_that_wait_for_a_lock_do_not_keep_the_others_waiting_for_long(
    threads: Dispatcher, let_go: threading.Event
) -> None:
    for _ in range(4):
        threads.add_task(Asked("POST", lambda: wait_for(let_go)))
    last = Asked("POST", lambda: None)
    threads.add_task(last)
    wait_for(last.ended, seconds=30)


@pytest.mark.usefixtures("endless_turns")
def test_what_nobody_has_taken_is_cancelled_at_the_end(threads: Dispatcher, let_go: threading.Event) -> None:
    working: list[str] = []

    def work() -> None:
        working.append("one")
        wait_for(let_go)

    crowd = [Asked("POST", work) for _ in range(6)]
    for each in crowd:
        threads.add_task(each)
    until(lambda: len(working) == 4)
    threads.shutdown(timeout=0.1)
    until(lambda: [each.cancelled for each in crowd] == [False] * 4 + [True] * 2, seconds=10)
