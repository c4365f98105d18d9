"""Doors and workers of several hosts on one PostgreSQL, as far as the database can tell."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.real_server import SERVE, WORK, RealServer, Site

LEASE = 600
"""Seconds. So it is the session that tells, in these tests, that a worker is gone."""


class Lab:
    """Doors and workers, each with a state folder of its own."""

    def __init__(self, site: Site, servers: ExitStack, url: str) -> None:
        self.site = site
        self.url = url
        self._servers = servers
        self._count = 0

    def door(self, **settings: object) -> RealServer:
        """A server without devices, which has no model and no demo."""
        nowhere = {"demo_home": "/nowhere", "model_dir": "/nowhere"}
        return self._start([*SERVE, "--no-devices"], **nowhere, **settings)

    def worker(self, model: str = "model", **settings: object) -> RealServer:
        """A worker that has this model."""
        (self.site.folder / model).mkdir(exist_ok=True)
        self.site.environ["LLAMA_DIR"] = str(self.site.folder / model)
        return self._start(WORK, **settings)

    def _start(self, command: list[str], **settings: object) -> RealServer:
        self._count += 1
        common = {"database_url": self.url, "state_dir": self.site.folder / f"state {self._count}", "lease": LEASE}
        return self._servers.enter_context(self.site.serving(command, **(common | {"warm": "off"} | settings)))


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
