"""Recovers a device: ends what killed servers left on it, and resets one that a child may not have closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from demo_api.config import Settings
from demo_api.demo import run_folder
from demo_api.demo.command import MARK
from demo_api.demo.run_folder import RunFolder
from demo_api.devices import reset
from demo_api.devices.lock import Device, DeviceLock
from demo_api.devices.reset import Reset
from demo_api.process import tree
from demo_api.queue import DeviceStates

logger = logging.getLogger(__name__)


class DeviceRecovery:
    """Of one device. ``clear_up``, ``prepare`` and ``reset`` need its lock; the others may be called by anybody."""

    def __init__(self, states: DeviceStates, device: Device, settings: Settings) -> None:
        self._states = states
        self._device = device
        self._settings = settings
        self._lock = threading.Lock()
        self._reset: Reset | None = None
        self._stopped = False
        self._logged: str | None = None

    def clear_up(self) -> str | None:
        """Ends what killed runs left on the device, and removes their prompts.

        Returns:
            a sentence, when a child was cut off before it closed the device; otherwise None.
        """
        self._device.take_waiting()  # the child that waited is gone, or the lock would not be the caller's
        folders = run_folder.existing(self._settings.runs_dir)
        cut_off = {folder: child for folder in folders if (child := folder.child_id(self._device.name)) is not None}
        doubt = self._end(cut_off.values())
        for folder in cut_off:
            # The plugin removes the prompts when pytest has ended, and with it whatever opened the device.
            if folder.prompts.exists():
                doubt = doubt or f"The child of batch {folder.path.name} was killed together with its server."
            folder.forget_prompts()
        run_folder.prune(folders, keep=self._settings.keep_runs, days=self._settings.keep_days)
        return doubt

    def end_lost(self, batch_ids: Collection[str]) -> str | None:
        """Ends what is left of batches whose server is gone or suspended: SIGINT first, so that the device is closed.

        Returns:
            a sentence, when the device may not have been closed.
        """
        folders = [RunFolder(self._settings.runs_dir / batch_id) for batch_id in batch_ids]
        return self._end([folder.child_id(self._device.name) or folder.path.name for folder in folders])

    def _end(self, child_ids: Collection[str]) -> str | None:
        left = tree.survivors(MARK, child_ids)
        if not left:
            return None
        logger.warning("ending %d processes that a lost server left: %s", len(left), left)
        in_order = tree.end(left, grace=self._settings.stop_grace)
        return None if in_order else "What a lost server had left on the device did not leave at SIGINT."

    def is_due(self) -> bool:
        """Whether the device is in doubt and there is a command that resets it."""
        if self._settings.reset_command is None:
            return False
        # "resetting" was left behind by a server that was killed while it did that.
        return self._states.get(self._device.name).state in ("suspect", "resetting")

    def prepare(self, lock: DeviceLock) -> bool:
        """Resets the device if that is due. Returns whether it may be used."""
        if self.is_due():
            users = reset.holders()  # a process that has nothing to do with us must not lose the device under its feet
            if users:
                self._log_users(", ".join(users))
                return False
            self.reset(lock)
        return True

    def reset(self, lock: DeviceLock) -> None:
        """Resets the device, and records the outcome: ``free``, ``failed``, or ``suspect`` when it was stopped."""
        name, settings = self._device.name, self._settings
        self._states.set(name, "resetting", f"The device is being reset with `{settings.reset_command}`.")
        environment = {name: value for name, value in settings.inherited.items() if not name.startswith("DEMO_API")}
        running = Reset(
            [command for command in (settings.reset_command, settings.reset_check) if command],
            mark=self._device.mark,
            timeout_s=settings.reset_timeout,
            environment={**environment, **self._device.environment},
            lock=lock.fd,
        )
        with self._lock:
            self._reset = running
            if self._stopped:
                running.stop()
        logger.info("device %s: resetting", name)
        problem = running.run()
        if problem is None:
            self._states.set(name, "free")
        elif self._stopped:
            self._states.set(name, "suspect", "The reset of the device was interrupted.")
        else:
            logger.error("device %s: %s", name, problem)
            self._states.set(name, "failed", problem)

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def stop(self) -> None:
        """Breaks off a reset that goes on, and every later one. Returns at once."""
        with self._lock:
            self._stopped = True
            if self._reset is not None:
                self._reset.stop()

    def end_lost_reset(self) -> None:
        """Ends a reset whose server is gone: nothing tells its processes that their server died."""
        if self._states.get(self._device.name).state == "resetting":
            left = tree.survivors(reset.MARK, {self._device.mark})
            tree.end(left, grace=self._settings.stop_grace)

    def _log_users(self, users: str) -> None:
        if users != self._logged:
            logger.warning("device %s: not reset while it is used by %s", self._device.name, users)
            self._logged = users
