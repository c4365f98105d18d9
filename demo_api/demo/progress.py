"""One batch on its way through a child: what the child prints becomes events of the batch's runs."""

from __future__ import annotations

from demo_api.demo import command
from demo_api.demo.results import Timestamp
from demo_api.devices.batch_runner import Listener
from demo_api.messages import Batch, Event
from demo_api.process.child import Child
from demo_api.transcript import Reader


class BatchProgress:
    """A batch's way, which begins now.

    Attributes:
        prompts: what the demo is given.
        reader: has read all that the child has printed so far.
        begun: when it began.
        has_begun: whether the child has come to the demo's test.
    """

    def __init__(self, batch: Batch, listener: Listener) -> None:
        self.batch = batch
        self.requests = [run.request for run in batch.runs]
        self.prompts = command.pad_to_batch_size([request.prompt for request in self.requests])
        self.reader = Reader(self.prompts)
        self.begun = Timestamp()
        self.has_begun = False
        self._listener = listener
        self._tell(Event("phase", self.begun.wall, {"phase": "startup"}))

    def hear(self, stream: str, chunk: bytes) -> None:
        """Takes in what the child has printed next."""
        for event in self.reader.feed("stdout" if stream == "stdout" else "stderr", chunk):
            self.has_begun = True
            self._tell(event)

    def stop_unless_begun(self, child: Child) -> None:
        """Stops a child that has not come to the test."""
        if not self.has_begun:
            child.stop("not_begun")

    def _tell(self, event: Event) -> None:
        runs, user = self.batch.runs, event.data.get("user")
        # Only its own run may see a user's text; the surplus users are nobody's.
        for run in runs if user is None else runs[user : user + 1] if isinstance(user, int) else ():
            self._listener(run.run_id, event)
