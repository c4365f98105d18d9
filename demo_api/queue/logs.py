"""What the child of a run has printed, wherever that was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from demo_api.demo.run_folder import RunFolder, ended_log, readable
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

    def of(self, run: Run) -> str:
        """All that the run's child has printed so far.

        Raises:
            NoLog: nothing is kept of it, or not here.
        """
        printed = self._read(run.batch_id, RunFolder.readable_log) if run.batch_id else ""
        if printed is None:
            node = self._ledger.queue.node_of(str(run.batch_id))
            raise NoLog(
                f"The log of run {run.run_id} is on another host: the node {node} has it.",
                next_step=f"Ask a server of that node, or look at runs/{run.batch_id} in its state folder.",
            )
        if not printed:
            raise NoLog(f"There is no log of run {run.run_id}: it has not started yet, or the log was removed.")
        return printed

    def of_ended(self, run: Run) -> str | None:
        """As ``of`` for a run that has ended; empty where nothing is kept, and None where only another node has it."""
        return self._read(run.batch_id, lambda folder: ended_log(folder.path)) if run.batch_id else ""

    def _read(self, batch_id: str, read: Callable[[RunFolder], str]) -> str | None:
        folder = RunFolder(self._folders / batch_id)
        if folder.path.is_dir():
            return read(folder)
        node = self._ledger.queue.node_of(batch_id)
        where = f"on the node {node}: runs/{batch_id} in its state folder"
        streams = [self._ledger.output.stream(batch_id, name) for name in ("stderr", "stdout")]
        if not any(streams) and node not in (None, self._ledger.workers.node):
            return None
        return "".join(readable(stream, where) for stream in streams if stream is not None)
