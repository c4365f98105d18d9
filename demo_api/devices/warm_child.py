"""A child that was started ahead: it has collected the demo's tests, or is about to, and waits to be told its batch.

Its mark and its folder are those of a batch that nobody has claimed yet. So whatever finds, ends and clears up the
processes of batches does the same for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo_api.config import Settings
from demo_api.demo.results import Timestamp, doubt
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import Device
from demo_api.process import tree as process_tree
from demo_api.process.child import Child
from demo_api.transcript import Reader

MARK = "DEMO_API_RUN"
"""The environment variable that has a batch's id in all processes of its child."""


@dataclass(frozen=True)
class LaunchSpec:
    """How a child is started."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]


@dataclass
class WarmChild:
    """The child that waits on a device. For one thread, the one that started it.

    Attributes:
        batch_id: of the batch that it will take.
        way: how it was started, to compare with how a child would be started now.
    """

    batch_id: str
    child: Child
    device: Device
    folder: RunFolder
    way: LaunchSpec
    settings: Settings
    spawned: Timestamp = field(default_factory=Timestamp)

    def __post_init__(self) -> None:
        self._reader = Reader([])
        self.child.listen(self.settings.max_output, self._hear)

    @property
    def is_ready(self) -> bool:
        """Whether it has collected the tests."""
        return self._reader.waiting_at is not None

    @property
    def is_there(self) -> bool:
        """Whether nobody has taken it."""
        return self.device.waiting() == self.batch_id

    @property
    def seconds_left(self) -> float:
        """How long it may still take to get ready."""
        return max(0.0, self.spawned.monotonic + self.settings.run_timeout / 2 - time.monotonic())

    def problem(self) -> str | None:
        """Why it is of no use any more, as the rest of a sentence about it; None if it is of use."""
        if not self.child.look():
            return "printed too much"
        if self.child.has_ended:
            return "ended before it was told a batch"
        if not self.is_ready and not self.seconds_left:
            return f"had not collected the tests after {self.settings.run_timeout / 2:g} s"
        return None if self.is_there else "was let go by somebody who needs the device"

    def take(self) -> bool:
        """Makes sure that it is this server's to tell. False: it is of no use, or somebody else lets it go."""
        return self.problem() is None and self.device.take_waiting()

    def let_go(self) -> str | None:
        """Ends it, and forgets that it was there.

        Returns:
            a sentence, when the device may not have been closed.
        """
        if self.is_there:
            self.device.take_waiting()
        self.child.stop("let_go")
        ended = self.child.follow(
            timeout_s=math.inf, max_output=self.settings.max_output, on_output=lambda stream, chunk: None
        )
        self.folder.remove()
        return doubt(ended)

    def _hear(self, stream: str, chunk: bytes) -> None:
        self._reader.feed("stdout" if stream == "stdout" else "stderr", chunk)


def let_go(device: Device, *, grace: float) -> str | None:
    """Ends the child that waits on a device, whichever server started it: the caller needs the device.

    Returns:
        a sentence, when the device may not have been closed.
    """
    batch_id = device.waiting()
    if batch_id is None or not device.take_waiting():
        return None
    in_order = process_tree.end(process_tree.survivors(MARK, {batch_id}), grace=grace)
    return None if in_order else "The child that waited on the device did not leave at SIGINT."
