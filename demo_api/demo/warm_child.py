"""A child that starts before its batch: it has collected the demo's tests, or is about to, and waits.

Its folder is that of a batch that nobody has claimed yet, and its mark is the id of its first batch. So whatever finds,
ends and clears up the processes of batches does the same for it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import psutil

from demo_api.config import Settings
from demo_api.demo import command
from demo_api.demo.home import ResolvedDemo
from demo_api.demo.model_shape import KeptModel
from demo_api.demo.results import Timestamp, doubt
from demo_api.demo.run_folder import RunFolder
from demo_api.process.child import Child
from demo_api.transcript import Reader

_MOST_GROWTH = 512 * 2**20
"""Bytes by which a child that keeps its model may grow after it has loaded one."""


@dataclass
class WarmChild:
    """For one thread, the one that started it; ``child.hurry`` may be called from any.

    Attributes:
        child_id: the mark of its processes.
        batch_id: of the batch that it will take.
        demo: with which it was started, to compare with what a child would be started with now.
        ready_within: seconds from the start in which it should get ready.
        keeps_model: whether it answers further batches with the model that it has loaded.
        ahead: whether it was started before its batch came.
        spawned: when its process was started.
        started: when it began to get ready: when it was spawned, or after its latest batch.
        state: ``waits`` for its batch, ``runs`` it, ``stays`` after it, or ``ended``.
        kept: the model that it has, where only one can be kept.
        batches: how many it has answered.
        demo_device: the device as the demo called it in an earlier batch.
    """

    child_id: str
    child: Child
    folder: RunFolder
    demo: ResolvedDemo
    settings: Settings
    ready_within: float
    keeps_model: bool = False
    ahead: bool = True
    spawned: Timestamp = field(default_factory=Timestamp)
    state: Literal["waits", "runs", "stays", "ended"] = "waits"
    kept: KeptModel | None = None
    batches: int = 0
    demo_device: str | None = None
    _most_bytes: float = math.inf

    def __post_init__(self) -> None:
        self.started = self.spawned
        self._listen()

    @property
    def batch_id(self) -> str:
        """Of the batch that it will take, or has taken."""
        return self.folder.path.name

    @property
    def is_ready(self) -> bool:
        """Whether it has collected the tests."""
        return self._reader.waiting_at is not None

    @property
    def seconds_left(self) -> float:
        """How long it may still take to get ready."""
        return max(0.0, self.started.monotonic + self.ready_within - time.monotonic())

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
        self.state = "runs"
        self.child.send_line(_line(config))

    def end_users(self, users: list[int]) -> None:
        """Asks it to take these users of its batch for done; without effect before and after the decode loop."""
        self.child.send_line(_line({"end": users}))

    def has_grown(self, *, loaded: bool) -> bool:
        """Whether it has more memory than the models that it keeps can explain.

        Args:
            loaded: whether its latest batch loaded one.
        """
        try:
            resident = psutil.Process(self.child.pid).memory_info().rss
        except psutil.Error:
            return False
        if loaded:
            self._most_bytes = resident + _MOST_GROWTH
        return bool(resident > self._most_bytes)

    def go_on(self, folder: RunFolder) -> None:
        """Lets it get ready for its next batch.

        Args:
            folder: the next batch's, as a child that waits needs it.

        Raises:
            OSError: its files could not be made.
        """
        self.child.print_into(folder.stdout, folder.stderr)
        self.folder, self.started, self.state, self.ahead = folder, Timestamp(), "waits", True
        self._listen()
        files = {"config": folder.plugin_config, "stdout": folder.stdout, "stderr": folder.stderr}
        paths = {name: str(path) for name, path in files.items()}
        self.child.send_line(_line({"words": command.pytest_words(folder, {}), **paths}))

    def end(self) -> str | None:
        """Ends it, unless it runs a batch: then it is the runner's.

        Returns:
            a sentence, when the device may not have been closed.
        """
        if self.state in ("runs", "ended"):
            return None
        is_waiting, self.state = self.state == "waits", "ended"
        self.child.stop("released")
        ended = self.child.follow(
            timeout_s=math.inf, max_output=self.settings.max_output, on_output=lambda stream, chunk: None
        )
        try:
            return doubt(ended, self.folder.path, was_open=self.batches > 0)
        finally:
            self.folder.forget_prompts()
            if is_waiting:
                self.folder.remove()

    def _listen(self) -> None:
        self._reader = Reader([])
        self.child.listen(self.settings.max_output, self._read)

    def _read(self, stream: str, chunk: bytes) -> None:
        self._reader.feed(stream, chunk)


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
