"""One batch on its way through a child: what the child prints becomes events of the batch's runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demo_api.demo.results import Timestamp
from demo_api.messages import Answer, Batch, Event
from demo_api.process.child import Child
from demo_api.transcript import Reader

Listener = Callable[[str, Event], None]
"""Called with a run's id and each of its events, on the thread that runs the batch."""


class BatchProgress:
    """How far a batch is; it starts when this is made.

    Attributes:
        prompts: what the demo is given: the last one repeated until they are as many as the demo's users.
        reader: has read all that the child has printed so far.
        started: when the batch did.
        test_started: whether the child has come to the demo's test.

    Args:
        users: how many the demo has.
    """

    def __init__(self, batch: Batch, users: int, listener: Listener) -> None:
        self.batch = batch
        prompts = [run.request.prompt for run in batch.runs]
        self.prompts = prompts + prompts[-1:] * (users - len(prompts))
        self.reader = Reader(self.prompts)
        self.started = Timestamp()
        self.test_started = False
        self._listener = listener
        self._texts: dict[int, str] = {}  # of users whose text comes as it is
        self._emit(Event("phase", self.started.wall, {"phase": "startup"}))

    def read(self, stream: str, chunk: bytes) -> None:
        """Takes in what the child has printed next."""
        for event in self.reader.feed(stream, chunk):
            self.test_started = True
            user = event.data.get("user")
            if isinstance(user, int) and "added" in event.data:
                self._texts[user] = self._texts.get(user, "") + str(event.data["added"])
            self._emit(event)

    def complete_texts(self, answers: Sequence[Answer]) -> None:
        """Tells what an answer has beyond the text that came."""
        for user, text in self._texts.items():
            whole = answers[user].response if user < len(answers) else ""
            if whole.startswith(text) and len(whole) > len(text):
                self._emit(Event("text", None, {"user": user, "added": whole[len(text) :]}))

    def stop_unless_started(self, child: Child) -> None:
        """Stops a child that has not come to the test."""
        if not self.test_started:
            child.stop("not_started")

    def _emit(self, event: Event) -> None:
        runs, user = self.batch.runs, event.data.get("user")
        # Only its own run may see a user's text; the surplus users are nobody's.
        for run in runs if user is None else runs[user : user + 1] if isinstance(user, int) else ():
            self._listener(run.run_id, event)
