"""Waits, with a deadline, for what other threads and processes do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable


def until(condition: Callable[[], object], *, seconds: float = 60, tick_seconds: float = 0.02) -> None:
    """Looks again and again until the condition is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it was still not so after {seconds} s"
        pause(tick_seconds)


def pause(seconds: float) -> None:
    """Lets time pass for the others, where the test is about time."""
    threading.Event().wait(seconds)


def wait_for(event: threading.Event, *, seconds: float = 120) -> None:
    """Waits for an event; fails after so many seconds, so that a forgotten one ends a hand-written fake's thread."""
    assert event.wait(seconds), f"nobody set the event within {seconds} s"


def join(*threads: threading.Thread, seconds: float = 120) -> None:
    """Waits until threads have ended; fails if one has not after so many seconds."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} has not ended within {seconds} s"


def at_once(actions: Iterable[Callable[[], object]], *, seconds: float = 240) -> None:
    """Runs each in a thread of its own; returns when all have ended."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    join(*threads, seconds=seconds)
