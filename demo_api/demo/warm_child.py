"""A child that starts before its batch: it has collected the demo's tests, or is about to, and waits.

Its mark and its folder are those of a batch that nobody has claimed yet. So whatever finds, ends and clears up the
processes of batches does the same for it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from demo_api.config import Settings
from demo_api.demo.command import LaunchSpec
from demo_api.demo.results import Timestamp, doubt
from demo_api.demo.run_folder import RunFolder
from demo_api.process.child import Child
from demo_api.transcript import Reader


@dataclass
class WarmChild:
    """For one thread, the one that started it; ``hurry`` may be called from any.

    Attributes:
        batch_id: of the batch that it will take.
        spec: how it was started, to compare with how a child would be started now.
        ready_within: seconds from the spawn in which it should get ready.
        is_used: whether a batch was sent to it, or it was ended.
    """

    batch_id: str
    child: Child
    folder: RunFolder
    spec: LaunchSpec
    settings: Settings
    ready_within: float
    spawned: Timestamp = field(default_factory=Timestamp)
    is_used: bool = False

    def __post_init__(self) -> None:
        self._reader = Reader([])
        self.child.listen(self.settings.max_output, self._read)

    @property
    def is_ready(self) -> bool:
        """Whether it has collected the tests."""
        return self._reader.waiting_at is not None

    @property
    def seconds_left(self) -> float:
        """How long it may still take to get ready."""
        return max(0.0, self.spawned.monotonic + self.ready_within - time.monotonic())

    def problem(self) -> str | None:
        """Why it is of no use any more, as the rest of a sentence about it; None if it is of use."""
        if not self.child.look():
            return "printed too much"
        if self.child.has_ended:
            return "ended before it was given a batch"
        if self.child.is_suspended:
            return "is suspended"
        if not self.is_ready and not self.seconds_left:
            return f"had not collected the tests after {self.ready_within:.0f} s"
        return None

    def send(self, config: Mapping[str, object]) -> None:
        """Gives it what the plugin waits for: options and sampling parameters of its batch."""
        self.is_used = True
        self.child.send_line(json.dumps(config).encode() + b"\n")

    def end(self) -> str | None:
        """Ends it, unless a batch was sent to it: then it is the runner's.

        Returns:
            a sentence, when the device may not have been closed.
        """
        if self.is_used:
            return None
        self.is_used = True
        self.child.stop("released")
        ended = self.child.follow(
            timeout_s=math.inf, max_output=self.settings.max_output, on_output=lambda stream, chunk: None
        )
        try:
            return doubt(ended, self.folder.path)
        finally:
            self.folder.remove()

    def _read(self, stream: str, chunk: bytes) -> None:
        self._reader.feed(stream, chunk)
