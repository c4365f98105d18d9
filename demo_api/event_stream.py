"""A run's events as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import closing

from demo_api.dispatcher import Dispatcher
from demo_api.messages import Event

KEEP_ALIVE_SECONDS = 15
"""How long a stream is silent at most, so that nobody in between takes it for dead."""


def stream(dispatcher: Dispatcher, run_id: str, after: int, *, cancel_on_disconnect: bool) -> Iterator[bytes]:
    """The body of an answer: the events after the one numbered ``after``, as they come.

    Args:
        cancel_on_disconnect: whether the run is cancelled when the client hangs up and nobody else waits for it.
    """
    ended, spoken = False, -math.inf
    opening = b"retry: 3000\n\n"  # not before follow() has begun: who has an answer is known to be there
    try:
        with closing(dispatcher.follow(run_id, after)) as following:
            for told in following:
                if told is not None:
                    number, event = told
                    ended = event.kind == "done"
                    yield opening + _encode(run_id, number, event)
                elif time.monotonic() - spoken >= KEEP_ALIVE_SECONDS:
                    yield opening + b": keep-alive\n\n"
                else:
                    continue
                opening, spoken = b"", time.monotonic()
    except GeneratorExit:
        if cancel_on_disconnect and not ended and not dispatcher.closed:
            dispatcher.leave(run_id)
        raise


def _encode(run_id: str, number: int, event: Event) -> bytes:
    data = json.dumps({"run_id": run_id, "at": event.at, **event.data})  # JSON in ASCII has no line end of its own
    return f"id: {number}\nevent: {event.kind}\ndata: {data}\n\n".encode()
