"""What goes wrong around a server: killed processes, orphans, a locked or damaged ledger, clients that are no help.

The long ones are in ``tests/soak``.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
import requests
from support.real_server import GUNICORN, SERVE, RealServer, Site, locked
from support.waiting import at_once, join, pause, until

ORPHANS = ["hang, then close slowly", "hang, deaf to SIGINT and SIGTERM"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("order", ORPHANS)
def test_a_server_that_finds_the_orphan_of_a_killed_one_never_runs_beside_it(site: Site, order: str) -> None:
    with site.serving() as killed:
        run_id = killed.submit(order)
        until((site.home / f"done: {order}").exists)
        (orphan,) = site.processes()
        killed.kill()
        with site.serving(stop_grace=1) as server:
            run = server.ending(run_id)
            assert (run["status"], run["response"], run["attempts"]) == ("succeeded", f"ok: {order}", 2)
            assert orphan not in site.processes()
            until(server.is_idle)
            assert server.device()["state"] == "free"
    assert site.overlaps() == ""


def test_what_a_killed_server_had_accepted_is_run_by_the_next_one(site: Site) -> None:
    with site.serving() as killed:
        accepted = [killed.submit("hang"), killed.submit("waits", max_tokens=5)]
        until((site.home / "done: hang").exists)
        killed.kill()
    until(lambda: site.processes() == [])
    with site.serving() as server:
        assert [server.ending(run_id)["status"] for run_id in accepted] == ["succeeded", "succeeded"]
        until(server.is_idle)
    assert site.overlaps() == ""
    site.check_ledger()


def test_a_child_that_is_killed_fails_its_run_only(site: Site) -> None:
    with site.serving() as server:
        run_id = server.submit("hang")
        until((site.home / "done: hang").exists)
        (child,) = site.processes()
        child.kill()
        run = server.ending(run_id)
        assert (run["status"], run["code"], run["exit_code"]) == ("failed", "interrupted", -9)
        until(server.is_idle)
        assert server.device()["state"] == "suspect"
        assert "-9" in server.device()["reason"]
        assert server.chat("Hello").json()["response"] == "ok: Hello"
        assert server.device()["state"] == "free"


def test_a_grandchild_that_is_killed_fails_the_run_that_needs_it(site: Site) -> None:
    with site.serving() as server:
        run_id = server.submit("wait for a helper")
        helper = site.home / "helper.pid"
        until(lambda: helper.exists() and helper.read_text() != "")
        psutil.Process(int(helper.read_text())).kill()
        run = server.ending(run_id)
        assert (run["status"], run["code"]) == ("failed", "demo_failed")
        assert "the helper ended with -9" in run["error"]
        until(server.is_idle)
        assert server.device()["state"] == "free"  # pytest ended in order, and so closed the device
        assert server.chat("Hello").json()["response"] == "ok: Hello"
        assert site.processes() == []


def test_a_child_that_is_killed_takes_its_grandchild_with_it(site: Site) -> None:
    with site.serving() as server:
        run_id = server.submit("wait for a helper")
        helper = site.home / "helper.pid"
        until(lambda: helper.exists() and helper.read_text() != "")
        next(process for process in site.processes() if process.pid != int(helper.read_text())).kill()
        assert server.ending(run_id)["code"] == "interrupted"
        until(server.is_idle)
        assert server.device()["state"] == "suspect"
        assert site.processes() == []
        assert server.chat("Hello").json()["response"] == "ok: Hello"


def test_four_workers_share_one_device(site: Site) -> None:
    answers: list[tuple[str, requests.Response]] = []
    with site.serving([*GUNICORN, "-w", "4", "--threads", "4"]) as server:
        prompts = [f"client {number}" for number in range(8)]
        at_once(lambda prompt=prompt: answers.append((prompt, server.chat(prompt))) for prompt in prompts)
        assert {prompt: answer.json().get("response") for prompt, answer in answers} == {
            prompt: f"ok: {prompt}" for prompt in prompts
        }
    assert site.overlaps() == ""


def test_chat_is_answered_although_the_ledger_is_locked_for_five_seconds(site: Site) -> None:
    answers: list[requests.Response] = []
    with site.serving() as server:
        asking = threading.Thread(target=lambda: answers.append(server.chat("Hello")))
        with locked(site.ledger):
            asking.start()
            asking.join(5)
            assert asking.is_alive()
            assert server.get("/health").json()["status"] == "healthy"
        join(asking)
    assert answers[0].json()["response"] == "ok: Hello"


def _is_text(ledger: Path) -> None:
    ledger.write_text("These are not the rows that you are looking for.\n" * 100)


def _is_cut_in_half(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes()[: ledger.stat().st_size // 2])


def _has_lost_its_pages(ledger: Path) -> None:
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))


def _contents(site: Site) -> dict[str, bytes]:
    """All that holds rows; the file -shm is only an index of the write-ahead log."""
    paths = [site.ledger, site.state / "ledger.db-wal"]
    return {path.name: path.read_bytes() for path in paths if path.exists() and path.stat().st_size}


DAMAGE = {
    "text, after a stop": (_is_text, signal.SIGTERM),
    "cut in half, after a kill": (_is_cut_in_half, signal.SIGKILL),
    "pages overwritten, after a kill": (_has_lost_its_pages, signal.SIGKILL),
}


@pytest.mark.parametrize(("damage", "end"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_ledger_is_told_and_left_as_it_is(
    site: Site, damage: Callable[[Path], None], end: signal.Signals
) -> None:
    with site.serving() as server:
        server.chat("Hello")
        with closing(sqlite3.connect(site.ledger)) as connection:  # from now on the write-ahead log has the news only
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        server.chat("Hello again")
        server.process.send_signal(end)
        server.process.wait(60)
    damage(site.ledger)
    before = _contents(site)
    done = subprocess.run(SERVE, env=site.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert f"The ledger {site.ledger} is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert _contents(site) == before


HEAD = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GIGABYTE = 2**30


def _connect(server: RealServer, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=30)
    connection.sendall(f"{HEAD}{head}\r\n\r\n".encode())
    return connection


def test_clients_that_send_slowly_do_not_keep_others_waiting(site: Site) -> None:
    body = json.dumps({"prompt": "slow"}).encode()
    with site.serving(max_queue=4) as server, ExitStack() as stack:
        slow = [stack.enter_context(_connect(server, f"Content-Length: {len(body)}")) for _ in range(300)]
        for byte in body[:3]:
            for connection in slow:
                connection.sendall(bytes([byte]))
            assert server.chat("Hello").json()["response"] == "ok: Hello"
            pause(1)
        slow[0].sendall(body[3:])
        assert slow[0].recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("head", [f"Content-Length: {GIGABYTE}", "Transfer-Encoding: chunked"], ids=["told", "chunked"])
def test_a_gigabyte_is_refused_and_costs_no_memory(site: Site, head: str) -> None:
    with site.serving() as server:
        assert server.chat("Hello").status_code == 200
        process = psutil.Process(server.process.pid)
        before, sent, piece = process.memory_info().rss, 0, b"x" * 2**16
        with _connect(server, head) as connection:
            try:
                while sent < GIGABYTE:
                    connection.sendall(b"10000\r\n" + piece + b"\r\n" if "chunked" in head else piece)
                    sent += len(piece)
            except OSError:  # it need not listen to all of that
                pass
            answer = connection.recv(100)
        assert server.chat("Hello").status_code == 200
        assert sent < GIGABYTE / 4
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert process.memory_info().rss - before < 64 * 2**20
