"""A run's events as server-sent events, and what each of them says.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Annotated, Literal, Protocol

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from demo_api.bodies import Failed, RunId, Seconds, Succeeded, ending
from demo_api.messages import PHASES, STATUSES, Event, Run
from demo_api.messages.health import DeviceName, Estimate

KEEP_ALIVE_SECONDS = 15
"""How long a stream is silent at most, so that nobody in between takes it for dead."""


class _Event(TypedDict):
    run_id: RunId
    at: Annotated[float | None, Field(description="Unix seconds; null where the child did not say.")]


class QueuedEvent(_Event):
    """Accepted; back in the queue (`again`)."""

    position: NotRequired[int]
    again: NotRequired[Literal[True]]


class PositionEvent(_Event):
    """Moved up in the queue. It is not kept: it has the number of the event before it, and is never sent again."""

    position: int


class StartedEvent(_Event):
    """Given to a child, or to the model in memory."""

    attempt: int
    batch_size: Annotated[int, Field(description="How many runs the child was given together.")]
    device: DeviceName
    estimate: NotRequired[
        Annotated[
            Estimate | None,
            Field(description="On the direct engine, as `POST /runs` of the demo engine has it; null if not known."),
        ]
    ]


class PhaseEvent(_Event):
    """The child has come to another part of its work; the model in memory, to `prefill` or `decode`."""

    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})]


class ProgressEvent(_Event):
    """Tokens are made; told five times a second at most."""

    iteration: Annotated[int, Field(description="Of the decode, from 0. It makes the token number `iteration` + 2.")]
    tokens_per_second_per_user: float | None


class TextEvent(_Event):
    """Text was made."""

    added: Annotated[str, Field(description="What it adds to the text so far.")]
    best_effort: NotRequired[
        Annotated[Literal[True], Field(description="The text so far may differ from the answer, which is in `done`.")]
    ]


class _DoneEvent(_Event):
    status: Annotated[str, Field(json_schema_extra={"enum": list(STATUSES[2:])})]
    time_seconds: Seconds


class SucceededEvent(_DoneEvent, Succeeded):
    """The last event of a run that has an answer."""


class FailedEvent(_DoneEvent, Failed):
    """The last event of a run that has none."""


EVENTS = {
    "queued": QueuedEvent,
    "position": PositionEvent,
    "started": StartedEvent,
    "phase": PhaseEvent,
    "progress": ProgressEvent,
    "text": TextEvent,
    "done": SucceededEvent | FailedEvent,
}
"""The data of each kind of event."""


class Encoder(Protocol):
    """How a stream writes events."""

    def opening(self) -> bytes:
        """What comes before everything else."""

    def encode(self, number: int, event: Event) -> bytes:
        """One event with its number; empty for one that is left out."""


class Events:
    """Our own way: every event with its number, its kind, and its data in JSON.

    Args:
        run: returns the run as it is now; called for its last event.
    """

    def __init__(self, run_id: str, run: Callable[[], Run]) -> None:
        self._run_id = run_id
        self._run = run

    def opening(self) -> bytes:
        """After how many milliseconds a client that lost its connection comes back."""
        return b"retry: 3000\n\n"

    def encode(self, number: int, event: Event) -> bytes:
        """JSON in ASCII has no line end of its own."""
        said = done(self._run()) if event.kind == "done" else event.data
        data = json.dumps({"run_id": self._run_id, "at": event.at, **said})
        return f"id: {number}\nevent: {event.kind}\ndata: {data}\n\n".encode()


def done(run: Run) -> dict[str, object]:
    """The data of a run's last event."""
    return {"status": run.status, "time_seconds": run.time_seconds, **ending(run)}


def stream(
    encoder: Encoder,
    follow: Callable[[], Generator[tuple[int, Event] | None]],
    *,
    is_gone: Callable[[], bool],
    on_leave: Callable[[], None],
) -> Iterator[bytes]:
    """The body of an answer: a run's events as they come.

    Args:
        follow: begins to give the events with their numbers, and None while none comes.
        is_gone: whether the client has hung up, as far as that can be known without sending something.
        on_leave: is called when the client hangs up before the last event.
    """
    ended, gone, spoken = False, False, -math.inf
    opening = encoder.opening()  # not before follow() has begun: who has an answer is known to be there
    try:
        with closing(follow()) as following:
            for told in following:
                if gone := told is None and is_gone():
                    break
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
    if gone:
        on_leave()
