"""Waiting for what other threads and processes do, where there is no event for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, seconds: float = 60, tick_seconds: float = 0.02) -> None:
    """Looks until it is so."""
    tick, deadline = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        tick.wait(tick_seconds)
