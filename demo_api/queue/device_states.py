"""The state of each device, for all servers and across restarts."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from demo_api.messages import Outcome
from demo_api.messages.health import DEVICE_STATES
from demo_api.queue.database import Database
from demo_api.queue.node import Node
from demo_api.queue.schema import devices
from demo_api.queue.session import QUEUED

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceState:
    """The state of a device, apart from whether a child has it.

    Attributes:
        state: ``free``, ``suspect``, ``resetting`` or ``failed``.
        reason: a sentence; None for ``free``.
        since: Unix seconds; None for a device that was always free.
        drained_at: since when it takes no runs, in Unix seconds; None: it does.
    """

    state: str = "free"
    reason: str | None = None
    since: float | None = None
    drained_at: float | None = None

    @property
    def shown(self) -> str:
        """What ``/health`` calls it while no child uses it."""
        return self.state if self.drained_at is None or self.state in ("failed", "resetting") else "drained"


class DeviceStates:
    """The states of a node's devices, by their names."""

    def __init__(self, database: Database, node: Node) -> None:
        self._database = database
        self._node = node

    def get(self, name: str) -> DeviceState:
        """The state of a device; free when nothing is known."""
        with self._database.read() as connection:
            return self._state(connection, name)

    def set(self, name: str, state: str, reason: str | None = None) -> None:
        """Sets the state, unless it is this one already."""
        if self.get(name).state != state:
            self._write(name, {"state": state, "reason": reason, "since": time.time()})

    def drain(self, name: str) -> None:
        """The device takes no further run, until ``resume``; a batch that runs goes on."""
        if self.get(name).drained_at is None:
            self._write(name, {"drained_at": time.time()})

    def resume(self, name: str) -> None:
        """The device takes runs again."""
        if self.get(name).drained_at is not None:
            self._write(name, {"drained_at": None})

    def settle(self, name: str, outcome: Outcome) -> None:
        """Records what a batch has shown of the device: a run that succeeded proves that it is well."""
        if any(result.failure is None for result in outcome.results):
            self.set(name, "free")
        elif outcome.suspect:
            self.suspect(name, outcome.suspect)

    def suspect(self, name: str, reason: str) -> None:
        """Marks the device as suspect, unless it has failed."""
        logger.warning("device %s: %s", name, reason)
        if self.get(name).state != "failed":
            self.set(name, "suspect", reason)

    def _write(self, name: str, new: dict[str, Any]) -> None:
        full_name = self._node.device(name)
        with self._database.write() as connection:
            self._database.lock(connection, [full_name])  # or two insert the same device
            changed = connection.execute(devices.update().where(devices.c.name == full_name).values(new))
            if not changed.rowcount:
                first = {"state": "free", "since": time.time()}
                connection.execute(devices.insert().values(name=full_name, **(first | new)))
            self._database.notify(connection, QUEUED, "")

    def _state(self, connection: Connection, name: str) -> DeviceState:
        known = select(devices).where(devices.c.name.in_(self._node.names(name)))
        found = {row["name"]: row for row in connection.execute(known).mappings()}
        row = found.get(self._node.device(name)) or found.get(name)
        if row is None:
            return DeviceState()
        if row["state"] not in DEVICE_STATES:
            reason = f"The ledger has no known state of it, but {row['state']!r}."
            return DeviceState("suspect", reason, row["since"], row["drained_at"])
        return DeviceState(row["state"], row["reason"], row["since"], row["drained_at"])
