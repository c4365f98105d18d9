"""More clients than there are descriptors for."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from support.command_line import DEMO_API
from support.real_server import RealServer, Site

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def serving_with(tmp_path: Path) -> Iterator[Callable[[str], RealServer]]:
    """Starts a server whose limits the shell has set."""
    with ExitStack() as servers:

        def start(limit: str) -> RealServer:
            command = ["bash", "-c", f'ulimit {limit} && exec "$@"', "-", *DEMO_API, "serve", "--port", "0"]
            return servers.enter_context(Site(tmp_path).serving(command))

        yield start


@contextmanager
def clients(server: RealServer, number: int) -> Iterator[list[socket.socket]]:
    """So many connections, on which nobody says a word."""
    port = int(server.url.rsplit(":", 1)[1])
    with ExitStack() as opened:
        yield [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(number)]


def test_idle_clients_make_room_the_longest_idle_first(serving_with: Callable[[str], RealServer]) -> None:
    server = serving_with("-n 256")  # 160 connections
    before = len(server.log().splitlines())
    with clients(server, 400) as idle:
        assert requests.get(f"{server.url}/livez", timeout=30).status_code == 200
        assert idle[0].recv(1) == b""  # closed
        idle[-1].sendall(LIVEZ)
        assert idle[-1].recv(12) == b"HTTP/1.1 200"
    assert len(server.log().splitlines()) - before <= 4, server.log()


def test_the_soft_limit_is_raised(serving_with: Callable[[str], RealServer]) -> None:
    server = serving_with("-S -n 200")
    with clients(server, 400) as idle:
        for client in idle:
            client.sendall(LIVEZ)
            assert client.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(("command", "code"), [("serve --port 0", 3), ("compare --start", 2)])
def test_too_few_descriptors_for_a_server_are_one_sentence(tmp_path: Path, command: str, code: int) -> None:
    words = f"ulimit -n 100; {sys.executable} -m demo_api {command}"
    done = subprocess.run(
        ["bash", "-c", words], env=Site(tmp_path).environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stderr
    assert "A server needs 128 open files, and this process may have 100." in done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
