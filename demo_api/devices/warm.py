"""When a device's next child starts before its batch, when one stays after it, and when the one that waits is ended."""

from __future__ import annotations

import logging
import time

from demo_api.config import Settings
from demo_api.demo.command import MARK
from demo_api.demo.warm_child import WarmChild
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import Device, DeviceLock
from demo_api.errors import DemoApiError
from demo_api.messages import Batch
from demo_api.process import tree
from demo_api.queue import new_id

logger = logging.getLogger(__name__)

STARTING_SECONDS = 0.05
WAITING_SECONDS = 0.25
"""How often a child that gets ready, and one that waits, is checked; and the queue, for what other servers accept."""

_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 3600.0


class WarmPolicy:
    """The warm child of one device. ``touch`` and ``hurry`` may be called from any thread, the others from the loop's.

    Attributes:
        child: the child that waits, or that runs a batch and may stay, if there is one.
    """

    def __init__(self, runner: BatchRunner, device: Device, settings: Settings) -> None:
        self.child: WarmChild | None = None
        self._runner = runner
        self._device = device
        self._settings = settings
        self._touched_at = time.monotonic()
        self._failures = 0
        self._not_before = 0.0

    def touch(self) -> None:
        """A request came, or was answered: the next one may come soon."""
        self._touched_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether a child should start when the device is free."""
        wanted = self._settings.warm_level != "off" and self.child is None and not self._is_idle()
        return wanted and time.monotonic() >= self._not_before

    def start(self, lock: DeviceLock, batch: Batch | None = None) -> None:
        """Starts a child that waits for the next batch.

        Args:
            batch: this one, for a child that is to stay after it.

        Raises:
            SetupError, OSError: as ``BatchRunner.start_warm``.
        """
        batch_id = batch.batch_id if batch else new_id()
        self._device.note_waiting(batch_id)
        try:
            self.child = self._runner.start_warm(batch_id, lock, batch)
        except BaseException:
            self._device.take_waiting()
            raise

    def start_to_stay(self, lock: DeviceLock, batch: Batch) -> None:
        """Starts a child for a batch that has none, where it may stay after it, and if that can be done."""
        if self._settings.warm_level == "model" and time.monotonic() >= self._not_before:
            try:
                self.start(lock, batch)
            except (DemoApiError, OSError):  # a child for this batch alone will say why
                self.failed()

    def keep(self) -> str | None:
        """The child has answered its batch and stays: it gets ready for the next one.

        Returns:
            a sentence, when it had to be ended and that leaves the device in doubt.
        """
        if self.child is None:
            return None
        try:
            self._device.note_waiting(self.child.child_id)
            self._runner.prepare_next(self.child, new_id())
        except OSError as error:
            logger.warning("device %s: the child cannot stay: %s", self._device.name, error)
            return self.end()
        return None

    def check(self) -> str | None:
        """Ends the child if it is of no use any more, or has waited for long enough.

        Returns:
            a sentence, when that leaves the device in doubt.
        """
        if self.child is None:
            return None
        problem = self._problem(self.child)
        if problem is None:
            return self.end() if self._is_idle() else None
        logger.warning("device %s: the warm child %s", self._device.name, problem)
        if self._is_taken(self.child):
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        else:
            self.failed()
        return self.end()

    def take(self) -> bool:
        """Reserves the child for a batch. False: it is of no use, or somebody else ends it."""
        return self.child is not None and self._problem(self.child) is None and self._device.take_waiting()

    def end(self) -> str | None:
        """Ends the child, unless a batch has used it.

        Returns:
            a sentence, when the device may not have been closed.
        """
        child = self.child
        if child is None:
            return None
        if not self._is_taken(child):
            self._device.take_waiting()
        try:
            return child.end()
        finally:
            self.child = None

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being ended."""
        child = self.child
        if child is not None:
            child.child.hurry()

    def failed(self) -> None:
        """One could not be started, or did not start its batch. The next may follow at once, then each one later."""
        pause = _PAUSE_SECONDS * (2**self._failures - 1)
        self._failures += 1
        self._not_before = time.monotonic() + min(pause, _LONGEST_PAUSE_SECONDS)

    def succeeded(self) -> None:
        """One has started its batch."""
        self._failures = 0

    def pause(self, otherwise: float) -> float:
        """Seconds after which the loop is to check again."""
        if self.child is None:
            return otherwise
        return min(otherwise, WAITING_SECONDS if self.child.is_ready else STARTING_SECONDS)

    def _problem(self, child: WarmChild) -> str | None:
        problem = child.problem()
        if problem is None and self._is_taken(child):
            return "was ended by somebody who needs the device"
        return problem

    def _is_taken(self, child: WarmChild) -> bool:
        return self._device.waiting() != child.child_id

    def _is_idle(self) -> bool:
        return time.monotonic() - self._touched_at >= self._settings.child_idle


def end_waiting_child(device: Device, *, grace: float) -> str | None:
    """Ends the child that waits on a device, whichever server started it: the caller needs the device.

    Args:
        grace: seconds between SIGINT and SIGTERM.

    Returns:
        a sentence, when the device may not have been closed.
    """
    batch_id = device.waiting()
    if batch_id is None or not device.take_waiting():
        return None
    in_order = tree.end(tree.survivors(MARK, {batch_id}), grace=grace)
    return None if in_order else "The child that waited on the device did not leave at SIGINT."
