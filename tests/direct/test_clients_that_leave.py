"""Clients of the direct engine that give up: nobody can fetch their answers, so none is made."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import openai
import pytest
from support.echo_model import EchoModel
from support.serving import Server
from support.waiting import until

from demo_api.config import Settings
from demo_api.direct import DirectEngine

WORDS = {"role": "user", "content": "one two three"}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "/chat": ("/chat", {"prompt": "one two three"}),
    "/chat/stream": ("/chat/stream", {"prompt": "one two three"}),
    "a chat completion": ("/v1/chat/completions", {"model": "echo", "messages": [WORDS]}),
    "a streamed chat completion": ("/v1/chat/completions", {"model": "echo", "messages": [WORDS], "stream": True}),
    "a completion": ("/v1/completions", {"model": "echo", "prompt": "one two three"}),
    "a streamed completion": ("/v1/completions", {"model": "echo", "prompt": "one two three", "stream": True}),
}


@pytest.fixture(autouse=True)
def _silent_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent by which a stream would find out."""
    monkeypatch.setattr("demo_api.web.event_stream.KEEP_ALIVE_SECONDS", 1000)


@pytest.fixture
def model() -> EchoModel:
    return EchoModel(slots=1, paused=True)


@pytest.fixture
def start(serve: Callable[..., Server], settings: Callable[..., Settings], model: EchoModel) -> Callable[..., Server]:
    def make(**flags: object) -> Server:
        chosen = settings(engine="direct", **flags)
        engine = DirectEngine(model, chosen)
        engine.start()
        engine.wait_until_loaded()
        return serve(chosen, engine)

    return make


def ask(server: Server, path: str, body: dict[str, Any]) -> socket.socket:
    """Sends a request and reads no answer."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + text)
    return connection


def line(server: Server) -> tuple[int, int]:
    queue = server.get("/health").json()["queue"]
    return queue["running"], queue["waiting"]


@pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES)
def test_the_answer_of_a_client_that_leaves_is_ended(
    start: Callable[..., Server], model: EchoModel, path: str, body: dict[str, Any]
) -> None:
    server = start()
    with closing(ask(server, path, body)):
        assert model.entered.acquire(timeout=30)
    until(lambda: line(server) == (0, 0))
    model.let_go.set()
    assert server.chat("next").json()["response"] == "next"
    assert model.words == 1, "nothing of the first was said"


@pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES)
def test_who_leaves_while_waiting_makes_room_for_others(
    start: Callable[..., Server], model: EchoModel, path: str, body: dict[str, Any]
) -> None:
    server = start(max_queue=1)
    with closing(ask(server, "/chat", {"prompt": "first"})):
        assert model.entered.acquire(timeout=30)
        with closing(ask(server, path, body)):
            until(lambda: line(server) == (1, 1))
            assert server.chat("one too many").json()["code"] == "queue_full"
        until(lambda: line(server) == (1, 0))
        with closing(ask(server, "/chat", {"prompt": "another"})):
            until(lambda: line(server) == (1, 1))
    until(lambda: line(server) == (0, 0))
    assert model.words == 0


def test_a_client_that_tries_again_and_gives_up_leaves_nothing_behind(
    start: Callable[..., Server], model: EchoModel
) -> None:
    server = start()
    messages: Any = [WORDS]
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2, timeout=1) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="echo", messages=messages)
    until(lambda: line(server) == (0, 0))
    assert model.words == 0


def test_a_server_can_be_told_to_go_on(start: Callable[..., Server], model: EchoModel) -> None:
    server = start(cancel_on_disconnect=False)
    with closing(ask(server, "/chat", {"prompt": "one two three"})):
        assert model.entered.acquire(timeout=30)
    model.let_go.set()
    until(lambda: line(server) == (0, 0))
    assert model.words == 3
