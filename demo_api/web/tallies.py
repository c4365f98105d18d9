"""Sums that all processes of a state folder add to, and that outlive every one of them.

prometheus-client has a way of its own for several processes: a file for each, named by its pid. It must be chosen by a
variable before the import, the files of dead processes stay for ever, and two containers that share a folder have the
same pids. A small database of SQLite's has none of that.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from demo_api.errors import MetricsUnavailable

logger = logging.getLogger(__name__)

Key = tuple[str, ...]

_PATIENCE_SECONDS = 0.1
"""How long a request may wait for another process that writes. What could not be written is added later."""

_AGAIN_SECONDS = 1.0
_READ_SECONDS = 2.0
_TABLES = """
    CREATE TABLE IF NOT EXISTS tallies (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS processes (host TEXT, pid INTEGER, started REAL, PRIMARY KEY (host, pid)) WITHOUT ROWID;
"""
_ADD = "INSERT INTO tallies VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value"


class Tallies:
    """Numbers by their keys. All methods may be called from any thread.

    Args:
        file: None for those of this process alone, which are forgotten with it.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._pending: dict[Key, float] = {}
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._try_at = 0.0

    def add(self, amounts: Mapping[Key, float]) -> None:
        """Adds to some of the numbers, all at once. It never fails: what cannot be written now is written later."""
        with self._lock:
            self._notice_fork()
            for key, amount in amounts.items():
                self._pending[key] = self._pending.get(key, 0.0) + amount
            if self._file is None or time.monotonic() < self._try_at:
                return
            try:
                self._write(_PATIENCE_SECONDS)
            except (sqlite3.Error, OSError) as error:
                self._try_at = time.monotonic() + _AGAIN_SECONDS
                logger.warning("metrics cannot be written into %s now: %s", self._file, error)

    def read(self) -> dict[Key, float]:
        """All numbers that are not zero.

        Raises:
            MetricsUnavailable: the file cannot be used now.
        """
        with self._lock:
            self._notice_fork()
            if self._file is None:
                return dict(self._pending)
            try:
                connection = self._write(_READ_SECONDS)
                rows = connection.execute("SELECT key, value FROM tallies").fetchall()
                return {tuple(json.loads(key)): value for key, value in rows}
            except (sqlite3.Error, OSError) as error:
                raise MetricsUnavailable(f"The metrics in {self._file} cannot be read now: {error}.") from error

    def processes(self) -> list[psutil.Process]:
        """The living processes on this host that have added something."""
        if self._file is None:
            return [psutil.Process()]
        with self._lock:
            try:
                connection = self._write(_READ_SECONDS)
                mine = (socket.gethostname(),)
                rows = connection.execute("SELECT pid, started FROM processes WHERE host = ?", mine).fetchall()
                found = {pid: _process(pid, started) for pid, started in rows}
                gone = [(*mine, pid) for pid, process in found.items() if process is None]
                connection.executemany("DELETE FROM processes WHERE host = ? AND pid = ?", gone)
            except (sqlite3.Error, OSError) as error:
                raise MetricsUnavailable(f"The metrics in {self._file} cannot be read now: {error}.") from error
        return [process for process in found.values() if process is not None]

    def _notice_fork(self) -> None:
        # What waited belongs to the parent, and SQLite's connections must not be used by a child.
        if self._pid != os.getpid():
            self._pid, self._connection, self._pending = os.getpid(), None, {}

    def _write(self, patience_seconds: float) -> sqlite3.Connection:
        connection = self._connection = self._connection or self._open()
        connection.execute(f"PRAGMA busy_timeout = {int(patience_seconds * 1000)}")
        if self._pending:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(_ADD, [(json.dumps(key), amount) for key, amount in self._pending.items()])
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            self._pending = {}
        return connection

    def _open(self) -> sqlite3.Connection:
        path = self._file or Path()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_READ_SECONDS)
        try:
            # Nothing waits for the disk: what the last seconds before a power failure added is lost.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
            myself = (socket.gethostname(), os.getpid(), psutil.Process().create_time())
            connection.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", myself)
        except BaseException:
            connection.close()
            raise
        weakref.finalize(self, connection.close)
        return connection


def _process(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1 else None
    except psutil.Error:
        return None
