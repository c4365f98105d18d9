"""What is SQLite's own of the ledger: its file, its connections, its transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from demo_api.errors import SetupError

BUSY_SECONDS = 15
"""How long a statement waits for another process that holds the lock."""


def make_private(path: Path) -> None:
    """Makes the file if need be, mode 0600: it holds prompts. SQLite gives the files beside it the same permissions.

    Raises:
        SetupError: it cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SetupError(
            f"The ledger {path} cannot be opened: {error.strerror}.",
            next_step="Set --state-dir (DEMO_API_STATE_DIR) to a writable folder.",
        ) from None


def check(path: Path) -> None:
    """Raises SetupError if this Python's SQLite is too old, or the file is damaged."""
    if sqlite3.sqlite_version_info < (3, 35):  # it knows no RETURNING
        raise SetupError(
            f"This Python's SQLite {sqlite3.sqlite_version} is too old: the ledger needs 3.35 or later.",
            next_step="Use a newer Python or system, or PostgreSQL: DEMO_API_DATABASE_URL.",
        )
    # Read-only: whoever closes a database last puts into its file what a killed server had left beside it.
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
            connection.execute("SELECT name, sql FROM sqlite_master").fetchall()
            (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        problem = str(error)
        if isinstance(error, sqlite3.OperationalError) and "decode" not in problem:
            return  # it is locked, or cannot be opened: its first user raises that
    if problem != "ok":
        raise SetupError(
            f"The ledger {path} is damaged: {' '.join(problem.split())}.",
            next_step="Nothing was changed. Restore it from a backup, or move it away (with its -wal and -shm files) "
            "to start a new one without its runs.",
        )


def identity(path: Path) -> tuple[int, int]:
    """Tells this file from any that takes its place: device and inode; (0, 0) where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def prepare(connection: Any, _record: object) -> None:
    """Sets up a new connection."""
    # What a disk has damaged must not keep the rest from being read.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.isolation_level = None  # the sqlite3 module begins no transactions of its own: ``begin`` does
    _choose_wal(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def begin(connection: Connection) -> None:
    """Begins a transaction."""
    # A transaction that reads first and then writes can only fail when another one has written in between.
    writes = connection.get_execution_options().get("demo_api_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _choose_wal(connection: Any) -> None:
    # The file keeps it. SQLite waits for no lock here, and servers may make a ledger at the same moment.
    until, pause = time.monotonic() + BUSY_SECONDS, threading.Event()
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
        pause.wait(0.02)
