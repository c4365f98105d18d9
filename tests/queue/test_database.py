"""The ledger's database: opened, migrated, locked, damaged, full, and shared; on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import gc
import os
import random
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, MetaData, delete, event, func, inspect, select, text
from support.databases import OpenLedger, columns, in_processes, in_threads, locked, make_tables, own_process

from demo_api.config import Settings
from demo_api.errors import LedgerUnavailable, SetupError, StorageFull
from demo_api.messages import Answer, Request, Result, Run
from demo_api.queue import Database, Ledger, Node, RunQueue, schema

Make = Callable[..., Settings]


def ask(prompt: str = "Hello") -> Request:
    return Request.model_validate({"prompt": prompt})


def prompts(ledger: Ledger) -> list[str]:
    return [run.request.prompt for run in ledger.history.page()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tests of SQLite's file have it."""
    return tmp_path / "ledger.db"


def opened(path: Path) -> Database:
    return Database(f"sqlite:///{path}")


# Tables and versions


@pytest.fixture
def migrated(url: str) -> Iterator[Database]:
    """The database of a ledger that the first version made."""
    make_tables(url, "0001")
    with closing(Database(url)) as database:
        yield database


def test_the_migrations_make_the_tables_of_the_schema(migrated: Database) -> None:
    with migrated.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.VERSION
        assert connection.execute(select(schema.queue_lock)).all() == [(1,)]


def test_tables_of_the_migrations_do_what_those_of_the_schema_do(url: str, migrated: Database) -> None:
    """Alembic does not compare what happens to rows that refer to others, nor how numbers are given."""

    def described() -> list[object]:
        with migrated.read() as connection:
            told = inspect(connection)
            tables = [
                [told.get_columns(name), told.get_pk_constraint(name), told.get_foreign_keys(name)]
                for name in schema.metadata.tables
            ]
            written = text("SELECT sql FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
            numbered = connection.execute(written).all() if url.startswith("sqlite") else []
            return [_plain(tables), len(numbered)]

    by_migrations = described()
    everything = MetaData()
    with migrated.write() as connection:
        everything.reflect(connection)
        everything.drop_all(connection)
        schema.create(connection)
    assert described() == by_migrations


def _plain(told: object) -> object:
    if isinstance(told, dict):
        return {key: _plain(value) for key, value in told.items()}
    return [_plain(each) for each in told] if isinstance(told, list) else str(told)


def test_a_number_is_never_given_twice(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    newest = select(func.max(schema.runs.c.number))
    numbers = []
    for _ in range(3):
        ledger.queue.submit([ask(), ask()])
        with database.write() as connection:
            numbers.append(connection.execute(newest).scalar_one())
            connection.execute(delete(schema.runs))
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("version", ["9999", f"{int(schema.VERSION) + 2:04}", "some_branch", "0000", "²"])
def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(
    open_ledger: OpenLedger, database: Database, version: str
) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask()])
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        connection.execute(text("ALTER TABLE devices ADD COLUMN colour TEXT"))
    with pytest.raises(SetupError, match=f"written by a newer demo_api .version {version}") as caught:
        open_ledger()
    assert "s3cret" not in str(caught.value)
    assert "newer demo_api" in caught.value.next_step
    del caught
    gc.collect()  # warns of a connection that was left open
    with database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == version
    assert prompts(ledger) == ["Hello"]


SINCE_WORKERS = [f"{number:04}" for number in range(3, int(schema.VERSION) + 1)]


@pytest.mark.parametrize("newer", SINCE_WORKERS)
def test_a_migration_only_adds_so_that_the_version_before_goes_on(url: str, newer: str) -> None:
    make_tables(url, f"{int(newer) - 1:04}")
    before = columns(url)
    make_tables(url, newer)
    after = columns(url)
    assert {name: after[name] for name in before} == before
    tables = {table for table, _ in before}
    for (table, name), (_, nullable) in after.items():
        assert (table, name) in before or table not in tables or nullable, "the version before leaves it out"


def _open_and_submit(url: str) -> int:
    database = Database(url)
    RunQueue(database, Node("node"), max_queue=100, max_batch=32, lease=20).submit([ask()])
    database.close()
    return 1


def test_servers_that_start_together_make_the_tables_once(url: str, open_ledger: OpenLedger) -> None:
    assert in_processes(6, _open_and_submit, url) == [1] * 6
    assert len(prompts(open_ledger())) == 6
    with closing(Database(url)) as database, database.read() as connection:
        assert connection.execute(select(schema.queue_lock)).all() == [(1,)]
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [(schema.VERSION,)]


def test_a_server_that_makes_the_ledger_is_waited_for(path: Path) -> None:
    with locked(f"sqlite:///{path}", 1), closing(opened(path)) as database, database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def _die_while_migrating(url: str) -> None:
    @event.listens_for(Engine, "after_cursor_execute")
    def die(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "CREATE TABLE events" in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    Database(url)


def test_a_server_that_is_killed_while_it_makes_the_tables_leaves_none(url: str, open_ledger: OpenLedger) -> None:
    with own_process(_die_while_migrating, url) as server:
        server.join(60)
        assert server.exitcode == -signal.SIGKILL
    ledger = open_ledger()
    ledger.queue.submit([ask()])
    assert prompts(ledger) == ["Hello"]


# Addresses


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_postgresql_is_a_url_away(postgresql: str, settings: Make, driver: str) -> None:
    with closing(Ledger(settings(database_url=postgresql.replace("postgresql", driver, 1)))) as ledger:
        assert ledger.queue.submit([ask()])[0].run_id in [run.run_id for run in ledger.history.page()]


@pytest.mark.parametrize("name", ["state", "a b", "50%20", "what?", "a#b", "ü:@"])
def test_without_an_address_it_is_in_the_state_folder_whatever_that_is_called(
    settings: Make, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name / "below"
    with closing(Ledger(settings(state_dir=folder))):
        assert sorted(each.name for each in folder.iterdir()) == ["ledger.db", "ledger.db-shm", "ledger.db-wal", "node"]
    assert sorted(each.name for each in folder.iterdir()) == ["ledger.db", "node"]
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("postgresql://user:s3cret@127.0.0.1:1/name", id="nobody there"),
        pytest.param("postgresql://user@127.0.0.1:1/name?password=s3cret", id="nobody there, password at the end"),
        pytest.param("postgresql://user:s3cret@127.0.0.1:port/name", id="a port that is none"),
        pytest.param("postgresql://user:a/s3cret@127.0.0.1:1/name", id="a password with a slash"),
        pytest.param("postgresql://user:a@s3cret@127.0.0.1:1/name", id="a password with an at"),
        pytest.param("postgresql://user:s3cret@127.0.0.1:1/name?connect_timeout=soon", id="a wrong option"),
        pytest.param("mysql://user:s3cret@127.0.0.1/name", id="another database"),
        pytest.param("postgresql+nothing://user:s3cret@127.0.0.1/name", id="no such driver"),
        pytest.param("postgresql+pg8000://user:s3cret@127.0.0.1/name", id="a driver that is not installed"),
        pytest.param("user:s3cret@127.0.0.1", id="no address at all"),
        pytest.param("sqlite://", id="in memory"),
        pytest.param("sqlite:///:memory:", id="in memory, by name"),
        pytest.param("sqlite:////proc/none/ledger.db", id="no such folder"),
        pytest.param("sqlite:////", id="a folder"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_so_without_its_password(settings: Make, address: str) -> None:
    chosen = settings(database_url=address)
    with pytest.raises(SetupError) as caught:
        Ledger(chosen)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    for said in (str(caught.value), repr(caught.value), caught.value.next_step, repr(chosen), str(chosen)):
        assert "s3cret" not in said


def test_the_password_is_in_no_representation(open_ledger: OpenLedger, database: Database) -> None:
    ledger = open_ledger()
    for each in (ledger, ledger.queue, ledger.history, ledger.devices, database, vars(database), vars(ledger)):
        assert "s3cret" not in repr(each)


# What SQLite is told


def test_every_connection_flushes_what_is_committed(url: str, database: Database) -> None:
    pragmas: dict[str, dict[str, object]] = {
        "sqlite": {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2, "PRAGMA foreign_keys": 1},
        "postgresql": {"SHOW synchronous_commit": "on"},
    }
    wanted = pragmas[url.split(":")[0]]
    with ExitStack() as together:
        connections = [together.enter_context(database.read()) for _ in range(3)]
        connections.append(together.enter_context(database.write()))
        for connection in connections:
            assert {each: connection.exec_driver_sql(each).scalar_one() for each in wanted} == wanted


def test_the_files_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(opened(path)) as database:
            RunQueue(database, Node("node"), max_queue=1, max_batch=1, lease=20).submit([ask()])
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


# Locked


def test_a_lock_of_another_process_is_waited_out_and_keeps_nobody_from_reading(
    url: str, open_ledger: OpenLedger
) -> None:
    ledger = open_ledger()
    run = ledger.queue.submit([ask("a")])[0]
    seconds = 5 if url.startswith("sqlite") else 2
    with locked(url) as release:
        assert ledger.history.get(run.run_id).status == "queued"
        assert len(ledger.history.events(run.run_id)) == 1
        assert ledger.queue.describe()["waiting"] == 1
        threading.Timer(seconds, release.set).start()
        told = in_threads(3, lambda: ledger.queue.submit([ask("b")])[0].request.prompt)
        assert release.is_set()
    assert told == ["b"] * 3
    assert prompts(ledger) == ["b", "b", "b", "a"]


def test_who_waits_for_a_lock_for_too_long_is_told_and_can_try_again(
    url: str, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 0.5)
    ledger = open_ledger()
    ledger.queue.submit([ask("a")])
    writes: list[Callable[[], object]] = [
        lambda: ledger.queue.submit([ask("b")]),
        lambda: ledger.queue.claim("device", list),
    ]
    with locked(url):
        for write in writes:
            with pytest.raises(LedgerUnavailable) as caught:
                write()
            assert not isinstance(caught.value, StorageFull)
    assert prompts(ledger) == ["a"]
    for write in writes:
        assert write()
    assert ledger.queue.describe() == {"waiting": 0, "running": 2, "limit": 32}


def test_many_who_wait_for_a_lock_do_not_wait_for_each_other_too(
    url: str, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 0.5)
    ledger = open_ledger()
    with locked(url):
        told = in_threads(6, lambda: ledger.queue.submit([ask()]))
    assert [type(each) for each in told] == [LedgerUnavailable] * 6
    assert prompts(ledger) == []


def test_who_finds_all_connections_taken_is_told_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 0.2)
    with closing(Database(url)) as database:

        def take_all() -> None:
            with ExitStack() as together:
                for _ in range(100):
                    together.enter_context(database.read())

        for _ in range(2):  # the first time gives all of them back
            with pytest.raises(LedgerUnavailable, match="too busy"):
                take_all()


# Damaged


def _null(data: bytes, path: Path) -> bytes:
    """With a run that has no status, which no table of ours may hold."""
    path.write_bytes(data)
    for what, instead in (("status TEXT NOT NULL", "status TEXT"), ("status TEXT", "status TEXT NOT NULL")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE runs SET status = NULL" if instead.endswith("NULL") else "SELECT 1")
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'runs'", (what, instead))
            connection.commit()
    return path.read_bytes()


DAMAGES: dict[str, Callable[[bytes, Path], bytes]] = {
    "random bytes": lambda data, _: random.Random(1).randbytes(len(data)),
    "another format": lambda data, _: b"PK\x03\x04" + data[4:],
    "a few bytes": lambda data, _: data[:50],
    "one page": lambda data, _: data[:4096],
    "the first half": lambda data, _: data[: len(data) // 8192 * 4096],
    "a half page at the end": lambda data, _: data[:-6000],
    "a page of zeros": lambda data, _: data[:8192] + bytes(4096) + data[12288:],
    "a page of ones": lambda data, _: data[:8192] + b"\xff" * 4096 + data[12288:],
    "a letter of the schema": lambda data, _: data.replace(b"version_num", b"version\xffnum"),
    "a value that cannot be": _null,
}


def filled(path: Path) -> bytes:
    """Makes a ledger, and says what is in its file."""
    with closing(opened(path)) as database:
        line = RunQueue(database, Node("node"), max_queue=100, max_batch=4, lease=20)
        line.submit([ask("x" * 500)] * 20)
    return path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_said_so_and_left_as_it_is(
    path: Path, tmp_path: Path, damage: Callable[[bytes, Path], bytes]
) -> None:
    data = damage(filled(path), tmp_path / "scratch.db")
    path.write_bytes(data)
    number = path.stat().st_ino
    with pytest.raises(SetupError, match="is damaged") as caught:
        opened(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Restore it from a backup" in caught.value.next_step
    gc.collect()  # connections that are still there close only now
    assert path.read_bytes() == data
    assert path.stat().st_ino == number


def _submit_and_die(url: str, prompt: str) -> None:
    RunQueue(Database(url), Node("node"), max_queue=100, max_batch=1, lease=20).submit([ask(prompt)])
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_damaged_file_is_left_as_it_is_with_what_a_killed_server_had_not_put_into_it_yet(path: Path) -> None:
    data = filled(path)
    with closing(sqlite3.connect(path)) as connection:  # a page that the killed server does not write anew
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'devices'").fetchone()
    with own_process(_submit_and_die, f"sqlite:///{path}", "y"):
        pass
    path.write_bytes(data[: (page - 1) * 4096] + bytes(4096) + data[page * 4096 :])
    files = [path, path.with_name("ledger.db-wal")]
    before = [each.read_bytes() for each in files]
    assert len(before[1]) > 4096
    with pytest.raises(SetupError, match="is damaged"):
        opened(path)
    gc.collect()
    assert [each.read_bytes() for each in files if each.exists()] == before


def test_a_ledger_that_cannot_be_opened_is_not_held_open(path: Path) -> None:
    path.write_bytes(DAMAGES["a page of zeros"](filled(path), path))
    with pytest.raises(SetupError) as caught:
        opened(path)
    assert "damaged" in str(caught.value)
    assert str(path) not in [each.path for each in psutil.Process().open_files()]


def test_a_closed_ledger_is_not_held_open(path: Path) -> None:
    database = opened(path)
    with database.read(), database.read():
        assert str(path) in [each.path for each in psutil.Process().open_files()]
    database.close()
    assert str(path) not in [each.path for each in psutil.Process().open_files()]


# Full


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON events EXECUTE FUNCTION full_disk();
"""


@pytest.fixture
def fill(url: str, database: Database) -> Callable[[], Callable[[], None]]:
    """Leaves no room in the database; what it gives back makes room again."""

    def tell(*statements: str) -> None:
        with database.read() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.commit()

    def fill() -> Callable[[], None]:
        if url.startswith("sqlite"):
            tell("PRAGMA max_page_count = 1")  # of this connection, the only one; as many as there are stay allowed
            return lambda: tell("PRAGMA max_page_count = 1000000")
        tell(FULL)
        return lambda: tell("DROP TRIGGER full_disk ON events")

    return fill


def test_a_full_disk_is_told_and_nothing_is_lost_by_it(
    open_ledger: OpenLedger, database: Database, fill: Callable[[], Callable[[], None]]
) -> None:
    line, history = RunQueue(database, Node("node"), max_queue=10, max_batch=1, lease=20), open_ledger().history
    (run,) = line.submit([ask("a")])
    batch = line.claim("device", list)
    assert batch is not None
    make_room = fill()
    long = [ask("x" * 30_000)]
    for _ in range(3):
        with pytest.raises(StorageFull) as caught:
            line.submit(long)
        assert caught.value.status_code == 507
    result = Result(run.run_id, answer=Answer("y" * 30_000, 3))
    with pytest.raises(StorageFull):
        line.finish(batch.batch_id, [result], 1)
    assert [(each.run_id, each.status) for each in history.page()] == [(run.run_id, "running")]
    assert len(history.events(run.run_id)) == 2
    make_room()
    assert line.finish(batch.batch_id, [result], 1)
    assert history.get(run.run_id).result == result
    line.submit(long)
    assert [each.status for each in history.page()] == ["queued", "succeeded"]


# Shared


def _fork(url: str) -> None:
    signal.alarm(60)  # rather than waiting for ever for an answer that the other one has got
    database = Database(url)
    line = RunQueue(database, Node("node"), max_queue=100, max_batch=1, lease=20)
    with database.read(), database.read():
        line.submit([ask("before")])  # so now there are three connections
    child = os.fork()
    for _ in range(20):
        line.submit([ask("parent" if child else "child")])
        line.describe()
    if not child:
        database.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    line.submit([ask("after")])
    database.close()
    os._exit(os.waitstatus_to_exitcode(status))


def test_parent_and_child_can_go_on_with_one_ledger_after_a_fork(url: str, open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    with own_process(_fork, url) as parent:
        parent.join(60)
        assert parent.exitcode == 0
    kept = prompts(ledger)
    assert (kept[-1], kept[0]) == ("before", "after")
    assert sorted(kept[1:-1]) == ["child"] * 20 + ["parent"] * 20


def _end_connections(postgresql: str) -> None:
    """As a server does that is started again."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_database_server_that_was_started_again_is_found_again(open_ledger: OpenLedger, postgresql: str) -> None:
    ledger = open_ledger()
    ledger.queue.submit([ask("a")])
    _end_connections(postgresql)
    ledger.queue.submit([ask("b")])

    def end(found: Sequence[Run]) -> list[Run]:
        _end_connections(postgresql)
        return list(found)

    with pytest.raises(LedgerUnavailable) as caught:
        ledger.queue.claim("device", end)
    assert "s3cret" not in str(caught.value)
    assert {run.status for run in ledger.history.page()} == {"queued"}
    assert ledger.queue.claim("device", list) is not None
