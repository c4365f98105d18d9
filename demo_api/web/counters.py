"""Counters that all processes of a state folder add to, and that outlive each of them.

prometheus-client has a way of its own for several processes: a file for each, named by its pid. It must be chosen by a
variable before the import, the files of dead processes stay for ever, and two containers that share a folder have the
same pids. A small database of SQLite's has none of that. The ledger does not count either: every answer to a request
would wait for the disk, or for PostgreSQL.
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
from pathlib import Path
from typing import Any

import psutil

from demo_api.errors import MetricsUnavailable

logger = logging.getLogger(__name__)

Key = tuple[str, ...]

_PATIENCE_SECONDS = 0.1
"""How long a request may wait for another process that writes. What could not be written is added later."""

_RETRY_SECONDS = 1.0
_READ_SECONDS = 2.0
_TABLES = """
    CREATE TABLE IF NOT EXISTS tallies (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS processes (host TEXT, pid INTEGER, started REAL, PRIMARY KEY (host, pid)) WITHOUT ROWID;
"""
_ADD = "INSERT INTO tallies VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value"


class Counters:
    """Numbers by their keys. All methods may be called from any thread.

    Nothing is opened before the first number: a server may fork its workers after it made the application.

    Args:
        file: None for those of this process alone, which are forgotten with it.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._pending: dict[Key, float] = {}
        self._connection: sqlite3.Connection | None = None
        self._retry_at = 0.0

    def add(self, amounts: Mapping[Key, float]) -> None:
        """Adds to some of the numbers, all at once. It never fails: what cannot be written now is written later."""
        with self._lock:
            for key, amount in amounts.items():
                self._pending[key] = self._pending.get(key, 0.0) + amount
            if self._file is None or time.monotonic() < self._retry_at:
                return
            try:
                self._flush(self._file, _PATIENCE_SECONDS)
            except (sqlite3.Error, OSError) as error:
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                logger.warning("metrics cannot be written into %s now: %s", self._file, error)

    def read(self) -> dict[Key, float]:
        """All numbers that are not zero.

        Raises:
            MetricsUnavailable: the file cannot be used now.
        """
        with self._lock:
            if self._file is None:
                return dict(self._pending)
            rows = self._execute(self._file, "SELECT key, value FROM tallies")
        return {tuple(json.loads(key)): value for key, value in rows}

    def processes(self) -> list[psutil.Process]:
        """The living processes on this host that have added something.

        Raises:
            MetricsUnavailable: the file cannot be used now.
        """
        if self._file is None:
            return [psutil.Process()]
        living = []
        with self._lock:
            host = socket.gethostname()
            for pid, started in self._execute(self._file, "SELECT pid, started FROM processes WHERE host = ?", host):
                process = _living(pid, started)
                if process:
                    living.append(process)
                else:
                    self._execute(self._file, "DELETE FROM processes WHERE (host, pid) = (?, ?)", host, pid)
        return living

    def _execute(self, file: Path, query: str, *values: object) -> list[Any]:
        try:
            return self._flush(file, _READ_SECONDS).execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise MetricsUnavailable(f"The metrics in {file} cannot be read now: {error}.") from error

    def _flush(self, file: Path, patience_seconds: float) -> sqlite3.Connection:
        """Writes what is pending: all of it or nothing."""
        connection = self._connection = self._connection or self._open(file)
        connection.execute(f"PRAGMA busy_timeout = {int(patience_seconds * 1000)}")
        if self._pending:
            with connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_ADD, [(json.dumps(key), amount) for key, amount in self._pending.items()])
            self._pending = {}
        return connection

    def _open(self, file: Path) -> sqlite3.Connection:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=_READ_SECONDS)
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


def _living(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1 else None
    except psutil.Error:
        return None
