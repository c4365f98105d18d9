"""A stop that comes while a child is spawned, or before."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.waiting import join, until

from demo_api.process.child import Child
from demo_api.process.stopping import CurrentChild, Stopped, stop_on_signals


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[[], Child]:
    """Spawns a child that waits without end."""

    def make() -> Child:
        return Child(
            [sys.executable, "-c", "import signal; signal.pause()"],
            cwd=tmp_path,
            env={},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            mark=("TEST_STOPPING", str(tmp_path)),
        )

    return make


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """Gives the tester's own handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def follow(child: Child) -> str | None:
    return child.follow(timeout_s=60, max_output=2**20, on_output=lambda _stream, _chunk: None).stopped


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_a_spawn_loses_no_child(spawn: Callable[[], Child], number: signal.Signals) -> None:
    current = CurrentChild()
    stop_on_signals(current.stop, current.hurry)

    def interrupted() -> Child:
        child = spawn()
        os.kill(os.getpid(), number)
        return child

    child = current.spawn(interrupted)
    process = psutil.Process(child.pid)
    assert follow(child) == "stopped"
    assert not process.is_running()


def test_a_stop_in_the_middle_of_a_spawn_waits_for_the_child(spawn: Callable[[], Child]) -> None:
    current = CurrentChild()
    stopper = threading.Thread(target=current.stop)

    def interrupted() -> Child:
        stopper.start()
        assert not current.is_stopped
        return spawn()

    child = current.spawn(interrupted)
    join(stopper)
    assert follow(child) == "stopped"


def test_after_a_stop_nothing_is_spawned(spawn: Callable[[], Child], tmp_path: Path) -> None:
    current = CurrentChild()
    current.stop()
    with pytest.raises(Stopped):
        current.spawn(spawn)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("signals_restored")
def test_a_signal_once_more_hurries() -> None:
    heard: list[str] = []
    stop_on_signals(lambda: heard.append("stop"), lambda: heard.append("hurry"))
    for number, count in ((signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGHUP, 3)):
        os.kill(os.getpid(), number)
        until(lambda count=count: len(heard) == count)  # type: ignore[misc]
    assert heard == ["stop", "hurry", "hurry"]


@pytest.mark.usefixtures("signals_restored")
def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signals(lambda: None, lambda: None)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
