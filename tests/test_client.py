"""The client in Python: a real server, and a proxy that loses connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import requests
from support.cutting_proxy import CuttingProxy
from support.echo_runner import EchoRunner
from support.serving import Server
from support.waiting import wait_for

from demo_api.client import Client, ServerError, reason
from demo_api.config import Settings
from demo_api.errors import BadRequest


@dataclass
class Line:
    """A server behind proxies that lose connections."""

    server: Server
    engine: EchoRunner
    proxies: list[CuttingProxy] = field(default_factory=list)

    def client(self, *cuts: bytes) -> Client:
        self.proxies.append(CuttingProxy(self.server.url, cuts))
        return Client(self.proxies[-1].url, patience=20, timeout=20)


@pytest.fixture
def line(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Iterator[Line]:
    engine = EchoRunner()
    made = Line(serve(settings(max_queue=2), engine), engine)
    yield made
    for proxy in made.proxies:
        proxy.close()


def test_a_chat_is_answered(line: Line) -> None:
    client = Client(f"{line.server.url}/")
    assert client.health()["status"] == "healthy"
    assert client.chat("Hello", max_tokens=5)["response"] == "Hello"


def test_an_error_is_an_exception_with_the_next_step(line: Line) -> None:
    with pytest.raises(ServerError, match="'max_tokens' is wrong") as caught:
        Client(line.server.url).chat("Hello", max_tokens=0)
    assert (caught.value.status, caught.value.code, caught.value.body["field"]) == (400, "bad_request", "max_tokens")
    assert caught.value.next_step
    with pytest.raises(ServerError) as failed:
        Client(line.server.url).chat("fail")
    assert (failed.value.status, failed.value.code) == (500, "demo_failed")


def test_a_run_is_submitted_once_although_its_answer_is_lost(line: Line) -> None:
    client = line.client(b"HTTP/1.1 202", b"HTTP/1.1 202")
    run_id = client.submit("Hello")
    assert line.proxies[-1].connections == 3
    assert [run["run_id"] for run in line.server.get("/runs").json()["runs"]] == [run_id]
    assert client.wait(run_id)["status"] == "succeeded"


CUTS = {
    "before the first event": b"retry: 3000",
    "between two events": b'"position": 1}\n\n',
    "within an event": b"id: 2\nevent: sta",
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_every_event_comes_once_although_the_connection_is_lost(line: Line, cut: bytes) -> None:
    run_id = Client(line.server.url).submit("Hello")
    client = line.client(cut)
    told = list(client.events(run_id))
    assert line.proxies[-1].connections == 2
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert [event.kind for event in told][-1] == "done"
    assert told[-1].data["response"] == "Hello"
    assert [event.number for event in client.events(run_id, after=2)] == [event.number for event in told[2:]]


def test_events_come_as_they_happen(line: Line) -> None:
    line.engine.let_go.clear()
    client = Client(line.server.url)
    following = client.events(client.submit("Hello"))
    assert next(event for event in following if event.kind == "phase").data["phase"] == "decode"
    line.engine.let_go.set()
    assert [event.kind for event in following] == ["done"]


def test_a_run_is_cancelled(line: Line) -> None:
    line.engine.let_go.clear()
    client = Client(line.server.url)
    run_id = client.submit("Hello")
    assert client.run(run_id)["status"] in ("queued", "running")
    assert client.cancel(run_id)["status"] == "cancelled"
    assert client.wait(run_id)["status"] == "cancelled"


def test_it_waits_for_room_in_the_line(line: Line) -> None:
    line.engine.let_go.clear()
    client = Client(line.server.url, patience=20)
    waiting = [client.submit("one")]
    wait_for(line.engine.entered)
    waiting += [client.submit("two"), client.submit("three")]
    with pytest.raises(ServerError) as caught:
        Client(line.server.url, patience=0).submit("four")
    assert caught.value.code == "queue_full"
    threading.Timer(0.5, line.engine.let_go.set).start()
    waiting.append(client.submit("four"))
    assert [client.wait(run_id)["status"] for run_id in waiting] == ["succeeded"] * 4


def test_it_gives_up_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(requests.ConnectionError) as caught:
        Client(f"http://127.0.0.1:{port}", patience=0.6).submit("Hello")
    assert reason(caught.value) == "Connection refused"


def test_a_server_that_hangs_up_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            connection, _ = rude.accept()
            with connection:
                connection.recv(65536)

        threading.Thread(target=hang_up).start()
        with pytest.raises(requests.ConnectionError) as caught:
            Client(f"http://127.0.0.1:{rude.getsockname()[1]}").health()
    assert reason(caught.value) == "Remote end closed connection without response"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://h", "http://", "http://h:99999", "me:secret@h"])
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(BadRequest, match="is not the address of a server") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_proxy_of_the_environment_is_not_asked(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert Client(line.server.url).health()["status"] == "healthy"
    with pytest.raises(requests.ConnectionError):
        Client(line.server.url, trust_env=True).health()


def test_the_url_that_may_be_shown_has_no_password() -> None:
    assert Client("http://me:secret@localhost:8080/").url == "http://localhost:8080"


def test_a_run_that_is_not_there_is_told_at_once(line: Line) -> None:
    with pytest.raises(ServerError) as caught:
        list(Client(line.server.url).events("nothing"))
    assert caught.value.code == "no_such_run"


def test_a_stranger_is_told_from_a_server(stranger: Callable[..., str]) -> None:
    with pytest.raises(ServerError, match="not as demo_api does") as caught:
        Client(stranger(404, b"what")).health()
    assert (caught.value.status, caught.value.code) == (404, "not_demo_api")
