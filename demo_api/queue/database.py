"""The database itself: connections, transactions, a clock that all servers share, and migrations."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, create_engine, event, extract, func, literal, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from demo_api.errors import LedgerUnavailable, SetupError, StorageFull
from demo_api.queue import schema, sqlite, versions
from demo_api.queue.sqlite import BUSY_SECONDS

_CONNECTIONS = 8
_AWAY_SECONDS = 3.0
"""A server reads once a second: after longer, the database, or this process, was away."""

_NOTICES_CUTS = {
    "connect_timeout": int(BUSY_SECONDS),
    "tcp_user_timeout": int(BUSY_SECONDS * 1000),
    "keepalives_idle": int(BUSY_SECONDS),
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""Parameters of libpq, without which a connection whose cable is cut would be waited for for hours."""

_MIGRATING = 20261122  # the number of a lock of PostgreSQL's


class Database:
    """SQLite or PostgreSQL, with the tables as this version wants them.

    Args:
        place: SQLite's file, or SQLAlchemy's URL.
        is_pooled: whether a pooler such as pgbouncer gives each transaction to whichever connection is free: then
            nothing may stay behind on one.
        upgrades: whether older tables are upgraded even while workers use them.

    Attributes:
        found_version: of the tables when it was opened; None where there were none.

    Raises:
        SetupError: it cannot be opened, is damaged, was written by a newer version, or by an older one whose workers
            are at work.
    """

    def __init__(self, place: Path | str, *, is_pooled: bool = False, upgrades: bool = False) -> None:
        self._url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else _checked(place)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        # SQLite's own waiting for its lock is unfair and wakes up late; so the writers of one process wait here.
        self._writing = threading.Lock()
        options: dict[str, Any] = {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
        options["json_deserializer"] = _from_json
        if self._is_sqlite:
            options["connect_args"] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        else:
            options["pool_pre_ping"] = True  # a database server may have been restarted
            options["connect_args"] = dict(_NOTICES_CUTS)
            if is_pooled:
                options["connect_args"]["prepare_threshold"] = None
        self._engine = create_engine(self._url, **options)
        if self._is_sqlite:
            event.listen(self._engine, "connect", sqlite.prepare)
            event.listen(self._engine, "begin", sqlite.begin)
        elif is_pooled:
            event.listen(self._engine, "begin", _prepare_transaction)
        else:
            event.listen(self._engine, "connect", _prepare_postgresql)
        self._path = Path(str(self._url.database))  # of SQLite's file
        self._file: tuple[int, int] | None = None  # which one is open
        self._refuses_writes = False
        self._used_at = time.monotonic()
        self.found_version: str | None = None
        self._there_since = -math.inf  # of an outage before its start a process knows nothing
        try:
            self._open(upgrades=upgrades)
            self._file = sqlite.identity(self._path) if self._is_sqlite else None
        except BaseException:
            self.close()
            raise
        weakref.finalize(self, self._engine.dispose)  # closes what nobody uses at that moment
        # A connection must not be shared between processes; gunicorn may fork after the application was made.
        forget = weakref.WeakMethod(self._forget_connections)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent view.

        Raises:
            LedgerUnavailable: the database cannot be read now.
        """
        self._check_file()
        with _translated_errors(), self._engine.connect() as connection:
            if not self._is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
        self._note_use()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; it is on the disk when the block has ended.

        On SQLite it is the only one that writes, from its first statement on (BEGIN IMMEDIATE).

        Raises:
            StorageFull: there is no room on the disk; nothing was written.
            LedgerUnavailable: the database cannot be written now; nothing was written.
        """
        self._check_file()
        try:
            with _translated_errors():
                if self._is_sqlite:
                    with self._one_writer(), self._engine.connect() as connection:
                        writes = connection.execution_options(demo_api_writes=True)
                        with writes.begin():
                            yield writes
                else:
                    with self._engine.begin() as connection:
                        yield connection
        except LedgerUnavailable as error:
            self._refuses_writes = isinstance(error.__cause__, DBAPIError) and "locked" not in str(error)
            raise
        self._refuses_writes = False
        self._note_use()

    def check_writable(self) -> None:
        """Raises what ``write`` does if the latest write failed, and still none succeeds: on a disk that became
        read-only, all can be read.
        """
        if self._refuses_writes:
            with self.write() as connection:
                connection.execute(update(schema.queue_lock).values(id=schema.queue_lock.c.id))

    def was_there(self, seconds: float) -> bool:
        """Whether this process could use the database again and again for so long: so could all the others."""
        now = time.monotonic()
        return now - self._used_at <= _AWAY_SECONDS and now - self._there_since >= seconds

    def _note_use(self) -> None:
        now = time.monotonic()
        if now - self._used_at > _AWAY_SECONDS:
            self._there_since = now
        self._used_at = now

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=BUSY_SECONDS):
            raise LedgerUnavailable("The ledger is too busy.")
        try:
            yield
        finally:
            self._writing.release()

    def lock(self, connection: Connection, names: Collection[str]) -> None:
        """Keeps all who lock one of these names from here until the transaction ends.

        On SQLite every transaction that writes does that, whatever it locks.
        """
        if not self._is_sqlite:
            here = func.hashtext(func.concat("demo_api queue ", func.current_schema()))
            # In one order, or two transactions wait for each other.
            locks = [func.pg_advisory_xact_lock(here, func.hashtext(name)) for name in sorted(names)]
            connection.execute(select(*locks))

    @property
    def has_many_hosts(self) -> bool:
        """Whether servers of several hosts can share it: PostgreSQL."""
        return not self._is_sqlite

    @property
    def address(self) -> str:
        """The URL, with its password, for clients of PostgreSQL."""
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    def notify(self, connection: Connection, channel: str, payload: str) -> None:
        """Tells the sessions of all processes when the transaction has ended. SQLite has none."""
        if self.has_many_hosts:
            connection.execute(select(func.pg_notify(channel, payload)))

    def clock(self, connection: Connection) -> float:
        """Seconds on a clock that all servers of this database share, and that nobody sets.

        SQLite is for one host, whose monotonic clock all processes share (it begins anew with the host). PostgreSQL may
        have servers on many hosts, so it is PostgreSQL's own.
        """
        if self._is_sqlite:
            return time.monotonic()
        return float(connection.execute(select(self.clock_now())).scalar_one())

    def clock_now(self) -> ColumnElement[Any]:
        """The same, within a statement."""
        return literal(time.monotonic()) if self._is_sqlite else extract("epoch", func.clock_timestamp())

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def _check_file(self) -> None:
        # What is written into a file that was removed is gone when the last process closes it.
        if self._file is not None and sqlite.identity(self._path) != self._file:
            raise LedgerUnavailable(
                f"The ledger {self._path} was removed or replaced while the server had it open.",
                next_step="Put it back, or restart the server to create a new one.",
            )

    def _forget_connections(self) -> None:
        self._writing = threading.Lock()
        self._engine.dispose(close=False)

    def _open(self, *, upgrades: bool) -> None:
        if self._is_sqlite:
            sqlite.make_private(self._path)
            sqlite.check(self._path)
        try:
            with self._engine.connect() as connection:
                self.found_version = versions.version(connection)
            if not versions.suits(self.found_version):
                self._migrate(upgrades=upgrades)
        except SQLAlchemyError as error:
            raise _cannot_open(self._url, error) from None

    def _migrate(self, *, upgrades: bool) -> None:
        with self.write() as connection:
            if not self._is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
            found = versions.version(connection)  # another server may have been first
            if found is None:
                schema.create(connection)
            elif not versions.suits(found):
                self._check_upgrade(connection, found, upgrades=upgrades)
                versions.upgrade(connection)

    def _check_upgrade(self, connection: Connection, found: str, *, upgrades: bool) -> None:
        if not versions.is_older(found):
            raise SetupError(
                f"The ledger {_named(self._url)} was written by a newer demo_api (version {found} of its tables).",
                next_step="Use that newer demo_api, or another --state-dir or DEMO_API_DATABASE_URL.",
            )
        at_work = [] if self._is_sqlite or upgrades else versions.workers_of(connection, found)
        if at_work:
            raise SetupError(
                f"The ledger {_named(self._url)} is of an earlier demo_api (version {found} of its tables), whose "
                f"workers use it: {', '.join(at_work)}.",
                next_step="Run `demo-api database upgrade`: those of the version before go on working.",
            )


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")  # before version 2.1 SQLAlchemy means psycopg2
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError("it is neither sqlite nor postgresql")
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ArgumentError("a ledger in memory would lose its runs")
        if "@" in (parsed.host or ""):
            raise ArgumentError("the special characters of its password must be written as %40 and so on")
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise SetupError(
            f"The ledger's address cannot be used: {str(error).rstrip('.')}.",
            next_step="Set DEMO_API_DATABASE_URL to sqlite:////a/path/ledger.db, or to postgresql://user:password@host/"
            "name with demo-api[postgres] installed, or leave it out.",
        ) from None
    return parsed


def _from_json(text: str) -> object:
    """None for what does not parse, so that one damaged row does not hide those beside it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _limits(word: str) -> str:
    # A server that is suspended within a transaction must not keep its locks.
    names = ("lock_timeout", "idle_in_transaction_session_timeout")
    return "; ".join(f"{word} {name} = {int(BUSY_SECONDS * 1000)}" for name in names)


def _prepare_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_limits("SET"))
    connection.commit()


def _prepare_transaction(connection: Connection) -> None:
    connection.exec_driver_sql(_limits("SET LOCAL"))


def _named(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _cannot_open(url: URL, error: SQLAlchemyError) -> SetupError:
    reason = _reason(error)
    return SetupError(
        f"The ledger {_named(url)} cannot be opened: {reason}.",
        next_step="Make it reachable, or set DEMO_API_DATABASE_URL to another.",
    )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout:
        raise LedgerUnavailable("The ledger is too busy.") from None
    except DBAPIError as error:
        if _is_full(error):
            raise StorageFull("The ledger's disk is full.") from error
        if _lacks_something(error):
            raise LedgerUnavailable(
                f"The ledger is damaged: {_reason(error)}.",
                next_step="Stop the servers, and restore the ledger from a backup, or move it away to start a new one.",
            ) from error
        raise LedgerUnavailable(f"The ledger cannot be used now: {_reason(error)}.") from error


def _is_full(error: DBAPIError) -> bool:
    # 53100: PostgreSQL's disk_full. SQLite's own code is there from Python 3.11 on only.
    return getattr(error.orig, "sqlstate", None) == "53100" or "disk is full" in str(error.orig)


def _lacks_something(error: DBAPIError) -> bool:
    # Class 42 of PostgreSQL's codes: an undefined table or column.
    state = getattr(error.orig, "sqlstate", None) or ""
    return state.startswith("42") or "no such table" in str(error.orig) or "no such column" in str(error.orig)


def _reason(error: SQLAlchemyError) -> str:
    whole = str(getattr(error, "orig", None) or error)
    return " ".join(whole.split()).rstrip(".")[:300]
