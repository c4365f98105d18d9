"""What is done about a device that a child may not have closed: the user's reset command, when nothing holds it."""

from __future__ import annotations

import logging
import threading

from demo_api.config import Settings
from demo_api.devices.lock import Device, DeviceLock
from demo_api.devices.reset import MARK, Reset, holders
from demo_api.process import tree as process_tree
from demo_api.queue import DeviceStates

logger = logging.getLogger(__name__)


class DeviceRecovery:
    """The care of one device. ``make_fit`` and ``reset`` want its hold; the others may be called by anybody."""

    def __init__(self, states: DeviceStates, device: Device, settings: Settings) -> None:
        self._states = states
        self._device = device
        self._settings = settings
        self._lock = threading.Lock()
        self._reset: Reset | None = None
        self._stopped = False
        self._told: str | None = None

    def is_due(self) -> bool:
        """Whether the device is in doubt and there is a command that resets it."""
        # "resetting" was left behind by a server that was killed while it did that.
        in_doubt = self._states.get(self._device.name).state in ("suspect", "resetting")
        return in_doubt and self._settings.reset_command is not None

    def make_fit(self, hold: DeviceLock) -> bool:
        """Resets the device if that is due. Returns whether it may be used."""
        if self.is_due():
            in_the_way = holders()  # a process that has nothing to do with us must not lose the device under its feet
            if in_the_way:
                self._tell_in_the_way(", ".join(in_the_way))
                return False
            self.reset(hold)
        return self._states.get(self._device.name).state != "failed"

    def reset(self, hold: DeviceLock) -> None:
        """Resets the device, and notes what came of it: ``free``, ``failed``, or ``suspect`` when it was stopped."""
        name, settings = self._device.name, self._settings
        self._states.set(name, "resetting", f"The device is being reset with `{settings.reset_command}`.")
        ours = {
            variable: value for variable, value in settings.inherited.items() if not variable.startswith("DEMO_API")
        }
        reset = Reset(
            [command for command in (settings.reset_command, settings.reset_check) if command],
            mark=self._device.mark,
            timeout_s=settings.reset_timeout,
            environment={**ours, **self._device.environment},
            lock=hold.fd,
        )
        with self._lock:
            self._reset = reset
            if self._stopped:
                reset.stop()
        logger.info("device %s: resetting", name)
        problem = reset.run()
        if problem is None:
            self._states.set(name, "free")
        elif self._stopped:
            self._states.set(name, "suspect", "The reset of the device was broken off.")
        else:
            logger.error("device %s: %s", name, problem)
            self._states.set(name, "failed", problem)

    def stop(self) -> None:
        """Breaks off a reset that goes on, and every later one. Returns at once."""
        with self._lock:
            self._stopped = True
            if self._reset is not None:
                self._reset.stop()

    def end_lost(self) -> None:
        """Ends a reset that a server had begun which is gone. Nobody has told it that its server died."""
        if self._states.get(self._device.name).state == "resetting":
            left = process_tree.survivors(MARK, {self._device.mark})
            process_tree.end(left, grace=self._settings.stop_grace)

    def _tell_in_the_way(self, in_the_way: str) -> None:
        if in_the_way != self._told:
            logger.warning("device %s: not reset while it is used by %s", self._device.name, in_the_way)
            self._told = in_the_way
