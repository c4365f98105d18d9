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

    def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
        """Which of these one child can take; the first always. All are alike but for their prompts, oldest first."""

    def start_warm(self, batch_id: str, lock: DeviceLock, batch: Batch | None = None) -> WarmChild:
        """Starts a child that will wait for the batch of this id."""

    def suits(self, warm: WarmChild) -> bool:
        """Whether the child that waits was started as one would be started now."""

    def prepare_next(self, warm: WarmChild, batch_id: str) -> None:
        """Lets a child that stays get ready for the batch of this id."""

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: WarmChild | None = None) -> Outcome:
        """Runs one batch to its end, in the child that waits for it or in a new one."""

    def cancel(self, batch_id: str, reason: str) -> None:
        """Ends the batch, now or as soon as it starts, with ``reason`` as its failure's code; returns at once."""

    def end_users(self, batch_id: str, users: Sequence[int]) -> None:
        """Ends the answers of these users of the batch, if it can; returns at once."""

    def hurry(self) -> None:
        """Cuts short the grace that a cancelled batch was given."""
