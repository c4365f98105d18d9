"""A run's events as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Protocol

from demo_api.messages import Event

KEEP_ALIVE_SECONDS = 15
"""How long a stream is silent at most, so that nobody in between takes it for dead."""


class Encoder(Protocol):
    """How events are written."""

    def opening(self) -> bytes:
        """What comes before everything else."""

    def encode(self, number: int, event: Event) -> bytes:
        """One event with its number; empty if it is not told."""


class Events:
    """Our own way: every event with its number, its kind, and its data in JSON."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def opening(self) -> bytes:
        """After how many milliseconds a client that lost its connection comes back."""
        return b"retry: 3000\n\n"

    def encode(self, number: int, event: Event) -> bytes:
        """JSON in ASCII has no line end of its own."""
        data = json.dumps({"run_id": self._run_id, "at": event.at, **event.data})
        return f"id: {number}\nevent: {event.kind}\ndata: {data}\n\n".encode()


def stream(
    encoder: Encoder, follow: Callable[[], Generator[tuple[int, Event] | None]], on_leave: Callable[[], None]
) -> Iterator[bytes]:
    """The body of an answer: a run's events as they come.

    Args:
        follow: begins to give the events with their numbers, and None while none comes.
        on_leave: is called when the client hangs up before the last event.
    """
    ended, spoken = False, -math.inf
    opening = encoder.opening()  # not before follow() has begun: who has an answer is known to be there
    try:
        with closing(follow()) as following:
            for told in following:
                if told is not None:
                    ended = told[1].kind == "done"
                    chunk = encoder.encode(*told)
                else:
                    chunk = b": keep-alive\n\n" if time.monotonic() - spoken >= KEEP_ALIVE_SECONDS else b""
                if opening or chunk:
                    yield opening + chunk
                    opening, spoken = b"", time.monotonic()
    except GeneratorExit:
        if not ended:
            on_leave()
        raise
