"""The demo engine: a door and a worker, with a loop for each device of this host, in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from demo_api.config import Settings
from demo_api.demo.capabilities import Capabilities
from demo_api.devices.batch_runner import BatchRunner
from demo_api.devices.lock import devices_of
from demo_api.devices.loop import DeviceLoop
from demo_api.devices.presence import Presence
from demo_api.errors import DeviceUnavailable
from demo_api.messages import Request, Run
from demo_api.messages.health import DeviceHealth
from demo_api.queue import Ledger, Worker
from demo_api.queue.door import Door
from demo_api.queue.pools import Pools, check_in_service
from demo_api.queue.session import CANCELLED, QUEUED
from demo_api.runner import DemoRunner


class DemoEngine(Door):
    """A door, and a worker that runs what this door and others accept for its model.

    Args:
        demo: what this worker runs.
        runners: one for each of the settings' devices.
    """

    runs_here = True

    def __init__(self, ledger: Ledger, demo: Capabilities, runners: Sequence[BatchRunner], settings: Settings) -> None:
        waits = settings.accept_without_worker
        self._pools = Pools(ledger.workers, demo, waits=waits) if ledger.has_many_hosts else None
        super().__init__(ledger, self._pools or demo, settings)
        pool = demo.model_name if ledger.has_many_hosts else lambda: None
        self._loops = [
            DeviceLoop(ledger, device, runner, settings, self._waiters.notify, pool, self._is_a_device_warm)
            for device, runner in zip(devices_of(settings), runners, strict=True)
        ]
        self._presence = self._session and Presence(ledger, self._session, demo.pool_model, self.devices)
        self._hurried = threading.Event()

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger) -> DemoEngine:
        """The engine as the settings say. Raises what ``Door`` does."""
        runners = [DemoRunner(settings, device) for device in settings.devices]
        return cls(ledger, Capabilities(settings), runners, settings)

    def start(self) -> None:
        """Starts the loops, once. Runs that an earlier server left in the queue are run now."""
        if self._presence is not None:
            self._presence.start()
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
        if self._presence is not None:
            self._presence.close()

    def hurry(self) -> None:
        """Cuts short the time that ``close`` gives, and the grace of the children."""
        self._hurried.set()
        for loop in self._loops:
            loop.hurry()

    def _is_a_device_warm(self) -> bool:
        """Whether some device waits with a warm child for a run of this worker's model, where it has such children."""
        if self._settings.warm_level == "off":
            return False
        here = any(loop.waits_warm for loop in self._loops)
        return here or (self._pools is not None and self._pools.is_warm_elsewhere())

    def _hear(self, channel: str, payload: str) -> None:
        super()._hear(channel, payload)
        for loop in self._loops:
            if channel == QUEUED:
                loop.wake(payload or None)
            elif channel == CANCELLED:
                loop.check_wanted(payload)

    def _describe_devices(self, _workers: Sequence[Worker]) -> list[DeviceHealth]:
        return self.devices()

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

    def _describe(
        self,
        name: str,
        *,
        in_use: bool = False,
        warm: str = "off",
        warm_since: float | None = None,
        warm_batches: int | None = None,
    ) -> DeviceHealth:
        known = self.ledger.devices.get(name)
        busy = in_use or self.ledger.queue.batches(name, "open")
        state = "busy" if busy and known.state in ("free", "suspect") else known.shown
        return {
            "name": name,
            "state": state,
            "reason": known.reason,
            "since": known.drained_at if state == "drained" else known.since,
            "warm": warm,
            "warm_since": warm_since,
            "warm_batches": warm_batches,
        }

    def _check_devices(self) -> None:
        states = [self.ledger.devices.get(loop.device.name) for loop in self._loops]
        check_in_service((state.shown, state.reason) for state in states)
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
