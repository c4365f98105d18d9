"""What an engine is to those who use one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from demo_api.devices.lock import Device, DeviceLock
from demo_api.devices.warm_child import WarmChild
from demo_api.messages import Batch, Event, Outcome, Request, Run
from demo_api.shapes import ModelHealth

Listener = Callable[[str, Event], None]
"""Called with a run's id and each of its events, on the thread that runs the batch."""


class BatchRunner(Protocol):
    """Turns a batch into answers, one batch at a time, on one device."""

    name: str
    device: Device
    held: WarmChild | None
    """The child that was started ahead and waits."""

    def check(self) -> None:
        """Raises SetupError, with the next step, when a run could not succeed on this machine as it is now."""

    def accept(self, request: Request) -> None:
        """Raises BadRequest for what this engine can know that it cannot do."""

    def demo(self) -> dict[str, str | None]:
        """The demo settings that a run accepted now is to be run with, also by another server and after a restart."""

    def choose(self, runs: Sequence[Run]) -> list[Run]:
        """Which of these one child can take; the first always. All are alike but for their prompts, oldest first."""

    def describe(self) -> ModelHealth:
        """What ``/health`` says of the engine."""

    def end_lost(self, batch_ids: Collection[str]) -> str | None:
        """Ends what is left of batches that are no server's any more.

        Returns:
            a sentence, when that puts the device in doubt; otherwise None.
        """

    def clear_up(self) -> str | None:
        """Ends what killed runs left on the device, which the caller holds.

        Returns:
            a sentence, when what was left puts the device in doubt; otherwise None.
        """

    def start_warm_child(self, batch_id: str, hold: DeviceLock) -> None:
        """Starts a child that will wait for the batch of this id.

        Args:
            hold: the caller's hold of the device.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the folder or the child could not be made.
        """

    def end_warm_child(self) -> str | None:
        """Ends the child that waits, if one does.

        Returns:
            a sentence, when that leaves the device in doubt; otherwise None.
        """

    def generate(self, batch: Batch, listener: Listener, hold: DeviceLock) -> Outcome:
        """Runs one batch to its end, in the child that was held for its id if there is one.

        When it raises, that child may still be there: ``end_warm_child`` ends it.

        Args:
            hold: the caller's hold of the device.

        Raises:
            SetupError: the demo home or the model is gone.
            OSError: the run's folder or the child could not be made.
        """

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, now or as soon as it begins, with ``reason`` as its failure's code; returns at once."""

    def hurry(self) -> None:
        """Cuts short the grace that a cancelled batch was given."""
