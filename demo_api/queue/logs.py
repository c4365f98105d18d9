"""What the child of a run has printed, wherever that was."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from demo_api.demo.run_folder import RunFolder
from demo_api.errors import NoLog
from demo_api.messages import Run
from demo_api.queue import Ledger


class Logs:
    """The logs of all runs: in the folders of this node, and with PostgreSQL in the database.

    Args:
        folders: where this node keeps those of its batches.
    """

    def __init__(self, ledger: Ledger, folders: Path) -> None:
        self._ledger = ledger
        self._folders = folders
        self._reading = threading.Lock()
        self._printed_by_ended = lru_cache(maxsize=2)(self._printed)

    def of(self, run: Run) -> str:
        """All that the run's child has printed so far.

        Raises:
            NoLog: nothing is kept of it, or not here.
        """
        printed = self._printed(run.batch_id) if run.batch_id else None
        if printed is not None:
            return printed
        node = self._other_node(run)
        if node:
            raise NoLog(
                f"The log of run {run.run_id} is on another host: the node {node} has it.",
                next_step=f"Ask a server of that node, or look at runs/{run.batch_id} in its state folder.",
            )
        raise NoLog(f"There is no log of run {run.run_id}: it has not started yet, or the log was removed.")

    def of_ended(self, run: Run) -> str | None:
        """As ``of`` for a run that has ended; empty where nothing is kept, and None where only another node has it."""
        if not run.batch_id:
            return ""
        with self._reading:  # the runs of a batch share one log, and all of them end together
            printed = self._printed_by_ended(run.batch_id)
        return "" if printed is None and not self._other_node(run) else printed

    def _printed(self, batch_id: str) -> str | None:
        folder = RunFolder(self._folders / batch_id)
        return folder.readable_log() if folder.path.is_dir() else self._ledger.output.readable(batch_id)

    def _other_node(self, run: Run) -> str | None:
        node = self._ledger.queue.node_of(run.batch_id) if run.batch_id else None
        return node if node != self._ledger.workers.node else None
