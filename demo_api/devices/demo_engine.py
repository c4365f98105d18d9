"""The demo engine of ``demo-api serve``: a door, and a loop for each device of this host, in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from demo_api.config import Settings
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import devices_of
from demo_api.devices.loop import DeviceLoop
from demo_api.errors import DeviceUnavailable
from demo_api.messages import DeviceHealth, Request, Run
from demo_api.queue import Ledger
from demo_api.queue.door import Demo, Door


class DemoEngine(Door):
    """A door whose runs are run in this process.

    Args:
        runners: one for each of the settings' devices.
    """

    def __init__(self, ledger: Ledger, demo: Demo, runners: Sequence[BatchRunner], settings: Settings) -> None:
        super().__init__(ledger, demo, settings)
        self._loops = [
            DeviceLoop(ledger, device, runner, settings, self._waiters.notify)
            for device, runner in zip(devices_of(settings), runners, strict=True)
        ]
        self._hurried = threading.Event()

    def start(self) -> None:
        """Starts the loops, once. Runs that an earlier server left in the queue are run now."""
        for loop in self._loops:
            loop.start()

    def submit(self, requests: Sequence[Request], idempotency_key: str | None = None) -> list[Run]:
        """As of any door; the loops claim the runs at once."""
        runs = super().submit(requests, idempotency_key)
        for loop in self._loops:
            loop.wake()
        return runs

    def devices(self) -> list[DeviceHealth]:
        """Each device, as its lock and the ledger tell."""
        return [self._describe_device(loop) for loop in self._loops]

    def close(self) -> None:
        """Takes no more runs, gives those that run their time to end, requeues them if that is over, and returns when
        no child is left.
        """
        super().close()
        for loop in self._loops:
            loop.close()
        deadline = time.monotonic() + self._settings.drain
        while not all(loop.join(0) for loop in self._loops) and time.monotonic() < deadline:
            if self._hurried.wait(0.02):
                break
        for loop in self._loops:
            loop.requeue()
        for loop in self._loops:
            loop.join()
        self._waiters.notify()

    def hurry(self) -> None:
        """Cuts short the time that ``close`` gives, and the grace of the children."""
        self._hurried.set()
        for loop in self._loops:
            loop.hurry()

    def _describe_device(self, loop: DeviceLoop) -> DeviceHealth:
        device, ours = loop.device, loop.warm_child
        has_child = device.has_child()
        waits = has_child and device.waiting() is not None
        if ours is None:
            return self._describe(device.name, in_use=has_child and not waits, warm="imports" if waits else "off")
        keeps = ours.keeps_model and ours.batches > 0
        return self._describe(
            device.name,
            in_use=has_child and not waits,
            warm="model" if keeps else "imports" if waits else "off",
            warm_since=ours.spawned.wall,
            warm_batches=ours.batches,
        )

    def _check_devices(self) -> None:
        super()._check_devices()
        problems = [loop.problem() for loop in self._loops]
        if all(problems):
            raise DeviceUnavailable(f"No device can be used now: {problems[0]}")

    def _check_kept(self, run_id: str) -> None:
        for loop in self._loops:
            problem = loop.unkept.get(run_id)
            if problem is not None:
                raise type(problem)(
                    f"The run has ended, but its result cannot be kept: {problem}",
                    next_step=f"{problem.next_step} The server goes on trying: then GET /runs/{run_id} has the result.",
                    run_id=run_id,
                )
