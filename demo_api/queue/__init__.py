"""Every accepted run, in a database: the ledger."""

from demo_api.config import Settings
from demo_api.demo.run_folder import refuse_links
from demo_api.queue.database import Database
from demo_api.queue.device_states import DeviceState, DeviceStates
from demo_api.queue.history import History
from demo_api.queue.node import Node
from demo_api.queue.rows import new_id
from demo_api.queue.run_queue import RunQueue
from demo_api.queue.workers import Worker, Workers

__all__ = [
    "Database",
    "DeviceState",
    "DeviceStates",
    "History",
    "Ledger",
    "Node",
    "RunQueue",
    "Worker",
    "Workers",
    "new_id",
]


class Ledger:
    """The database of runs: their queue, their history, and the states of the devices.

    Raises:
        SetupError: the database cannot be opened, is damaged, or was written by a newer version, the state folder
            cannot be used, or another user has planted a symbolic link in it.
    """

    def __init__(self, settings: Settings) -> None:
        refuse_links(settings.state_dir)
        self._database = Database(settings.database_url or settings.state_dir / "ledger.db")
        try:
            node = Node.of(settings.state_dir)
        except BaseException:
            self._database.close()
            raise
        self.queue = RunQueue(
            self._database, node, max_queue=settings.max_queue, max_batch=settings.max_batch, lease=settings.lease
        )
        self.history = History(self._database, keep_runs=settings.keep_runs, keep_days=settings.keep_days)
        self.devices = DeviceStates(self._database, node)
        self.workers = Workers(self._database, node)

    def check(self) -> None:
        """Raises LedgerUnavailable or StorageFull where nothing can be written, as far as that was noticed."""
        self._database.check_writable()

    def close(self) -> None:
        """Closes the connections of this process."""
        self._database.close()
