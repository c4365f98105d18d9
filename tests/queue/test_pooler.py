"""pgbouncer between the servers and PostgreSQL, in transaction mode: refused for the session, good for all else."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg
import pytest
from support.lab import free_port
from support.programs import program
from support.real_server import SERVE, Site
from support.waiting import until

CONFIG = """\
[databases]
* = host={socket} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = {folder}/log
"""


@pytest.fixture
def own_database(postgresql: str) -> str:
    """The URL of a database that has no tables: through pgbouncer a schema cannot be chosen."""
    name = f"pooled_{uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql.replace("/postgres?", f"/{name}?")


@pytest.fixture
def pooler(own_database: str, tmp_path: Path) -> Iterator[str]:
    """The same database's URL through pgbouncer, which hands two connections round."""
    found = program("pgbouncer", "Debian's pgbouncer")
    port = free_port()
    folder = tmp_path / "pgbouncer"
    folder.mkdir()
    url = urlsplit(own_database)
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG.format(socket=parse_qs(url.query)["host"][0], port=port, folder=folder))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # which it refuses to be
        owner = {"user": "nobody", "extra_groups": []}
        for path in (folder, *tmp_path.parents[:-2], tmp_path):
            path.chmod(path.stat().st_mode | 0o711)
        folder.chmod(0o777)
        config.chmod(0o644)
    with subprocess.Popen([found, config], stderr=subprocess.DEVNULL, **owner) as process:

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        until(listens)
        yield f"postgresql://postgres@127.0.0.1:{port}{url.path}"
        process.terminate()


def test_a_session_through_a_pooler_is_refused(pooler: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    environ = site.environ | {"DEMO_API_DATABASE_URL": pooler}
    ended = subprocess.run(SERVE, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "is a pooler, such as pgbouncer" in ended.stderr
    assert "DEMO_API_SESSION_URL" in ended.stderr


def test_with_a_session_of_its_own_all_else_goes_through_the_pooler(
    pooler: str, own_database: str, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    with site.serving(database_url=pooler, session_url=own_database, warm="off") as server:
        for number in range(6):  # more than it takes to have a statement prepared
            assert server.chat(f"Hello {number}").json()["response"] == f"ok: Hello {number}"
        assert len(server.get("/health").json()["nodes"]) == 1
        for _ in range(4):
            with psycopg.connect(pooler, autocommit=True) as other:  # gets the connections that the server used
                assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
