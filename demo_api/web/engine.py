"""The engine, as the routes use it: the door of the demo engine, or the direct engine."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from demo_api.messages import Event, Question, Run
from demo_api.messages.health import EngineHealth


class PendingRun(Protocol):
    """One accepted request, for the client that waits for it.

    Attributes:
        run_id: the run's.
    """

    run_id: str

    def run(self) -> Run:
        """The run as it is now."""

    def wait(self, is_gone: Callable[[], bool]) -> Run:
        """Waits for the run's end.

        Args:
            is_gone: whether the client has hung up; then the run is cancelled, if no other client waits for it.

        Raises:
            ShuttingDown: the server stops before that.
        """

    def events(self) -> Generator[tuple[int, Event] | None]:
        """The run's events with their numbers, as they come, up to ``done``; None while none comes.

        Events of kind ``text`` have ``added``: what they add to the text.
        """

    def leave(self) -> None:
        """Says that the client of the events has hung up."""

    def output(self, run: Run) -> str | None:
        """All that was printed for the run, which has ended; None where nothing prints."""


class Engine(Protocol):
    """Answers requests. All methods may be called from any thread.

    Attributes:
        engine_name: ``demo`` or ``direct``.
    """

    engine_name: str

    def start(self) -> None:
        """Begins to work, once."""

    def listen(self, on_end: Callable[[Run], None]) -> None:
        """Calls this with every run that this process brings to its end, after that."""

    def check(self) -> None:
        """Raises what keeps ``begin`` from accepting anything now, a full queue excepted."""

    def models(self) -> list[str]:
        """The names of the models that a request may ask for; empty where none is loaded yet."""

    def begin(self, question: Question, idempotency_key: str | None = None) -> PendingRun:
        """Accepts a request.

        Raises:
            DemoApiError: it is not accepted.
        """

    def describe(self) -> EngineHealth:
        """What ``/health`` says beside the status."""

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""

    def close(self) -> None:
        """Takes no more requests, gives those that run their time to end, and returns when nothing is left."""

    def hurry(self) -> None:
        """Cuts that time short."""
