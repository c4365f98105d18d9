"""One batch on its way through a child: what the child prints becomes events of the batch's runs."""

from __future__ import annotations

from collections.abc import Callable

from demo_api.demo.command import pad_to_batch_size
from demo_api.demo.results import Timestamp
from demo_api.messages import Batch, Event
from demo_api.process.child import Child
from demo_api.transcript import Reader

Listener = Callable[[str, Event], None]
"""Called with a run's id and each of its events, on the thread that runs the batch."""


class BatchProgress:
    """How far a batch is; it starts when this is made.

    Attributes:
        prompts: what the demo is given.
        reader: has read all that the child has printed so far.
        started: when the batch did.
        test_started: whether the child has come to the demo's test.
    """

    def __init__(self, batch: Batch, listener: Listener) -> None:
        self.batch = batch
        self.requests = [run.request for run in batch.runs]
        self.prompts = pad_to_batch_size([request.prompt for request in self.requests])
        self.reader = Reader(self.prompts)
        self.started = Timestamp()
        self.test_started = False
        self._listener = listener
        self._emit(Event("phase", self.started.wall, {"phase": "startup"}))

    def read(self, stream: str, chunk: bytes) -> None:
        """Takes in what the child has printed next."""
        for event in self.reader.feed(stream, chunk):
            self.test_started = True
            self._emit(event)

    def stop_unless_started(self, child: Child) -> None:
        """Stops a child that has not come to the test."""
        if not self.test_started:
            child.stop("not_started")

    def _emit(self, event: Event) -> None:
        runs, user = self.batch.runs, event.data.get("user")
        # Only its own run may see a user's text; the surplus users are nobody's.
        for run in runs if user is None else runs[user : user + 1] if isinstance(user, int) else ():
            self._listener(run.run_id, event)
