"""When a device's child is started ahead of requests, and when the one that waits is let go."""

from __future__ import annotations

import logging
import time

from demo_api.config import Settings
from demo_api.devices.batch_runner import BatchRunner

logger = logging.getLogger(__name__)

STARTING_SECONDS = 0.05
WAITING_SECONDS = 0.25
"""How often a child that gets ready, and one that waits, is looked at; and the line, for what other servers accept."""

_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 3600.0


class WarmPolicy:
    """For one device. ``asked`` may be called from any thread, the others from the one of the device's loop."""

    def __init__(self, engine: BatchRunner, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._asked_at = time.monotonic()
        self._failures = 0
        self._not_before = 0.0

    def asked(self) -> None:
        """A request came, or was answered: the next one may come soon."""
        self._asked_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether a child should be started when the device is free."""
        wanted = self._settings.starts_ahead and self._engine.held is None and not self._is_idle()
        return wanted and time.monotonic() >= self._not_before

    def tend(self) -> str | None:
        """Lets the child go that is of no use any more, or was not used for long.

        Returns:
            a sentence, when that leaves the device in doubt.
        """
        held = self._engine.held
        if held is None:
            return None
        problem = held.problem()
        if problem is None:
            return self._engine.end_warm_child() if self._is_idle() else None
        logger.warning("device %s: the child that was started ahead %s", self._engine.device.name, problem)
        if not held.is_there:  # somebody else wants the device
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        else:
            self.failed()
        return self._engine.end_warm_child()

    def failed(self) -> None:
        """One could not be started, or began nothing. The next one may follow at once, then each one later."""
        pause = _PAUSE_SECONDS * (2**self._failures - 1)
        self._failures += 1
        self._not_before = time.monotonic() + min(pause, _LONGEST_PAUSE_SECONDS)

    def was_used(self) -> None:
        """One has begun what it was told."""
        self._failures = 0

    def pause(self, otherwise: float) -> float:
        """Seconds after which the loop is to look again."""
        held = self._engine.held
        if held is None:
            return otherwise
        return min(otherwise, WAITING_SECONDS if held.is_ready else STARTING_SECONDS)

    def _is_idle(self) -> bool:
        return time.monotonic() - self._asked_at >= self._settings.warm_idle
