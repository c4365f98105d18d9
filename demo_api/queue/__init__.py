"""Every accepted run, in a database: the ledger."""

from collections.abc import Callable

from demo_api.config import Settings
from demo_api.demo.run_folder import refuse_links
from demo_api.errors import SetupError
from demo_api.queue.database import Database
from demo_api.queue.device_states import DeviceState, DeviceStates
from demo_api.queue.history import History
from demo_api.queue.node import Node
from demo_api.queue.output import Output
from demo_api.queue.rows import new_id
from demo_api.queue.run_queue import RunQueue
from demo_api.queue.session import Session
from demo_api.queue.workers import Worker, Workers

__all__ = [
    "Database",
    "DeviceState",
    "DeviceStates",
    "History",
    "Ledger",
    "Node",
    "RunQueue",
    "Session",
    "Worker",
    "Workers",
    "new_id",
    "open_database",
]


def open_database(settings: Settings, *, upgrades: bool = False) -> Database:
    """The ledger's database, made if it is not there; see ``Database``.

    Raises:
        SetupError: as ``Database``, or another user has planted a symbolic link in the state folder.
    """
    refuse_links(settings.state_dir)
    place = settings.database_url or settings.state_dir / "ledger.db"
    return Database(place, is_pooled=settings.session_url is not None, upgrades=upgrades)


class Ledger:
    """The database of runs: their queue, their history, and the states of the devices.

    Raises:
        SetupError: as ``open_database``, or the state folder cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = open_database(settings)
        try:
            node = Node.of(settings.state_dir, settings.node)
        except BaseException:
            self._database.close()
            raise
        self.queue = RunQueue(
            self._database,
            node,
            max_queue=settings.max_queue,
            max_batch=settings.max_batch,
            devices=len(settings.devices),
            lease=settings.lease,
            session_timeout=settings.session_timeout,
        )
        self.history = History(self._database, keep_runs=settings.keep_runs, keep_days=settings.keep_days)
        self.devices = DeviceStates(self._database, node)
        self.workers = Workers(self._database, node)
        self.output = Output(self._database)
        self._settings = settings

    def check(self) -> None:
        """Raises LedgerUnavailable or StorageFull where nothing can be written, as far as that was noticed."""
        self._database.check_writable()

    @property
    def has_many_hosts(self) -> bool:
        """Whether servers of several hosts can share it: PostgreSQL."""
        return self._database.has_many_hosts

    def check_many_hosts(self) -> None:
        """Raises SetupError unless servers of several hosts can share it."""
        if not self.has_many_hosts:
            raise SetupError(
                "Servers and workers share a PostgreSQL database, and this one is SQLite, which is for one host.",
                next_step="Set DEMO_API_DATABASE_URL (--database-url) to postgresql://user:password@host/name.",
            )

    def session(self, heard: Callable[[str, str], None]) -> Session | None:
        """A session of this process, as ``Session`` has it; None on SQLite, where nobody notifies.

        Raises:
            SetupError: PostgreSQL is too old for it, or there is a pooler before it.
            LedgerUnavailable: it cannot be reached now.
        """
        if not self.has_many_hosts:
            return None
        address = self._settings.session_url or self._database.address
        return Session(address, timeout=self._settings.session_timeout, heard=heard)

    def close(self) -> None:
        """Closes the connections of this process."""
        self._database.close()
