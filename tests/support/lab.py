"""Doors and workers of several hosts on one PostgreSQL, as far as the database can tell."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.real_server import PROGRAM, RealServer, Site

from demo_api.messages.health import DeviceHealth, PoolModel
from demo_api.queue import Ledger

Enlist = Callable[..., "psycopg.Connection[Any]"]

LEASE = 600
"""Seconds. So it is the session that tells, in these tests, that a worker is gone."""


class Lab:
    """Doors and workers, each with a state folder of its own.

    Attributes:
        program: what starts them: this version's, or another's.
    """

    def __init__(self, site: Site, servers: ExitStack, url: str) -> None:
        self.site = site
        self.url = url
        self.program = PROGRAM
        self._servers = servers
        self._count = 0

    def door(self, **settings: object) -> RealServer:
        """A server without devices, which has no model and no demo."""
        nowhere = {"demo_home": "/nowhere", "model_dir": "/nowhere"}
        return self._start("serve", "--port", "0", "--no-devices", **nowhere, **settings)

    def worker(self, model: str = "model", **settings: object) -> RealServer:
        """A worker that has this model."""
        (self.site.folder / model).mkdir(exist_ok=True)
        self.site.environ["LLAMA_DIR"] = str(self.site.folder / model)
        return self._start("worker", **settings)

    def _start(self, *words: str, **settings: object) -> RealServer:
        self._count += 1
        common = {"database_url": self.url, "state_dir": self.site.folder / f"state {self._count}", "lease": LEASE}
        return self._servers.enter_context(
            self.site.serving([*self.program, *words], **(common | {"warm": "off"} | settings))
        )


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def lab(tmp_path: Path, postgresql_schema: str) -> Iterator[Lab]:
    site = Site(tmp_path)
    site.environ["DEMO_API_STOP_GRACE"] = "1"
    with ExitStack() as servers:
        yield Lab(site, servers, postgresql_schema)


def device(name: str, state: str = "free", reason: str | None = None, warm: str = "off") -> DeviceHealth:
    """As a worker publishes it."""
    return {
        "name": name,
        "state": state,
        "reason": reason,
        "since": None,
        "warm": warm,
        "warm_since": None,
        "warm_batches": None,
    }


@pytest.fixture
def enlist(postgresql_schema: str) -> Iterator[Enlist]:
    """Adds a worker to a node, without its process. It lives while the connection that is returned is open."""
    with ExitStack() as sessions:

        def add(ledger: Ledger, model: str, *devices: DeviceHealth) -> psycopg.Connection[Any]:
            pool: PoolModel = {"model": model, "model_loaded": False, "sequence_limit": 2048, "takes_seed": True}
            number = ledger.workers.add("0.1.0", pool, devices)
            session = sessions.enter_context(psycopg.connect(postgresql_schema, autocommit=True))
            lock = "SELECT pg_advisory_lock(hashtext(concat('demo_api ', current_schema())), %s)"
            session.execute(lock, [number])
            return session

        yield add
