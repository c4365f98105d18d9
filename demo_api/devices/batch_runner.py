"""What a device's loop needs of whatever runs its batches: ``DemoRunner``, or a hand-written one in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from demo_api.demo.progress import Listener
from demo_api.demo.warm_child import WarmChild
from demo_api.devices.lock import DeviceLock
from demo_api.messages import Batch, Outcome, Run


class BatchRunner(Protocol):
    """Runs batches on one device, one at a time. ``DemoRunner`` says what each method returns and raises."""

    def choose(self, runs: Sequence[Run]) -> list[Run]:
        """Which of these one child can take; the first always. All are alike but for their prompts, oldest first."""

    def start_ahead(self, batch_id: str, lock: DeviceLock) -> WarmChild:
        """Starts a child that will wait for the batch of this id."""

    def suits(self, warm: WarmChild, batch: Batch) -> bool:
        """Whether the child that waits was started as one would be started now for this batch."""

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: WarmChild | None = None) -> Outcome:
        """Runs one batch to its end, in the child that waits for it or in a new one."""

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, now or as soon as it starts, with ``reason`` as its failure's code; returns at once."""

    def hurry(self) -> None:
        """Cuts short the grace that a cancelled batch was given."""
