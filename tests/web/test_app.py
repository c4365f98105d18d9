"""The HTTP door, one layer above the engine: a hand-written engine, a real server, a real port."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable

import pytest
import requests
from support.echo_runner import EchoRunner
from support.serving import Server
from support.waiting import join, until, wait_for

from demo_api.config import Settings
from demo_api.errors import SetupError

FIELDS = {
    "success", "prompt", "response", "output", "tokens_generated", "time_seconds", "tokens_per_second", "run_id",
    "engine", "model", "device", "finish_reason", "note", "timing",
}  # fmt: skip


@pytest.fixture
def server(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    return serve(settings(), EchoRunner())


def test_chat_answers_with_every_field(server: Server) -> None:
    answer = server.chat("Hello")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == FIELDS
    assert (body["success"], body["response"], body["engine"]) == (True, "Hello", "demo")
    assert body["tokens_generated"] == 1
    assert body["model"] is None  # the engine did not say


BAD = {
    "no body": (b"", "application/json", 400, "bad_request"),
    "not JSON": (b"{", "application/json", 400, "bad_request"),
    "a list": (b"[]", "application/json", 400, "bad_request"),
    "no prompt": (b"{}", "application/json", 400, "bad_request"),
    "an unknown field": (b'{"prompt": "a", "n": 1}', "application/json", 400, "bad_request"),
    "a form": (b"prompt=a", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    "over 1 MiB": (b" " * (2**20 + 1), "application/json", 413, "payload_too_large"),
}


@pytest.mark.parametrize(("body", "kind", "status", "code"), BAD.values(), ids=BAD)
def test_a_bad_request_is_told_what_to_do(server: Server, body: bytes, kind: str, status: int, code: str) -> None:
    answer = requests.post(f"{server.url}/chat", data=body, headers={"Content-Type": kind}, timeout=60)
    assert answer.status_code == status
    error = answer.json()
    assert (error["success"], error["code"]) == (False, code)
    assert error["error"]
    assert error["next_step"]
    assert error["request_id"] == answer.headers["X-Request-Id"]


TEXT = '{"prompt": "Grüß Gott 漢"}'
ENCODED = {
    "UTF-8 with a byte order mark": TEXT.encode("utf-8-sig"),
    "UTF-16, as PowerShell redirects": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-16, the other way round": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
}


@pytest.mark.parametrize("body", ENCODED.values(), ids=ENCODED)
def test_a_body_may_be_in_any_unicode_encoding(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{server.url}/chat", data=body, headers=headers, timeout=30)
    assert answer.json().get("prompt") == "Grüß Gott 漢", answer.text


UNREADABLE: dict[str, tuple[bytes, dict[str, str], int, str, str]] = {
    "Latin-1": (
        '{"prompt": "é"}'.encode("latin-1"),
        {"Content-Type": "application/json"},
        400,
        "The body is not JSON: it is not in UTF-8 (byte 13).",
        "Send JSON in UTF-8.",
    ),
    "gzip": (
        gzip.compress(b'{"prompt": "a"}'),
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        400,
        "The body is compressed (Content-Encoding: gzip), which the server does not read.",
        "Send it uncompressed, without that header.",
    ),
    "curl -d without -H": (
        b'{"prompt": "a"}',
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "The Content-Type is application/x-www-form-urlencoded, and must say JSON.",
        'Send JSON, and say so with the header "Content-Type: application/json".',
    ),
    "no Content-Type": (
        b'{"prompt": "a"}',
        {},
        415,
        "The Content-Type is missing, and must say JSON.",
        'Send JSON, and say so with the header "Content-Type: application/json".',
    ),
}


@pytest.mark.parametrize(("body", "headers", "status", "sentence", "next_step"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_not_read_is_said_in_one_sentence(
    server: Server, body: bytes, headers: dict[str, str], status: int, sentence: str, next_step: str
) -> None:
    answer = requests.post(f"{server.url}/chat", data=body, headers=headers, timeout=60)
    error = answer.json()
    assert (answer.status_code, error["error"], error["next_step"]) == (status, sentence, next_step)


def test_an_unknown_path_lists_the_endpoints(server: Server) -> None:
    answer = server.get("/nothing")
    assert answer.status_code == 404
    assert {"GET /health", "GET /runs/<run_id>/events", "POST /chat"} <= set(answer.json()["available_endpoints"])


def test_a_wrong_method_names_the_right_one(server: Server) -> None:
    answer = server.get("/chat")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("given", ["abc-123", "A" * 64])
def test_a_request_id_is_given_back(server: Server, given: str) -> None:
    answer = requests.get(f"{server.url}/health", headers={"X-Request-Id": given}, timeout=60)
    assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["a b", "A" * 65, "a\tb", "<script>", "\u00e9".encode().decode("latin-1")])
def test_a_request_id_that_is_none_is_replaced(server: Server, given: str) -> None:
    answer = requests.get(f"{server.url}/health", headers={"X-Request-Id": given.encode("latin-1")}, timeout=60)
    assert answer.headers["X-Request-Id"] not in ("", given)


def test_health_answers_while_every_place_in_the_line_is_taken(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    engine = EchoRunner(paused=True)
    server = serve(settings(max_queue=3), engine)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(server.chat("x").status_code)) for _ in range(4)]
    threads[0].start()
    wait_for(engine.entered)
    for thread in threads[1:]:
        thread.start()
    wanted = {"waiting": 3, "running": 1, "limit": 3}
    until(lambda: server.get("/health").json()["queue"] == wanted)
    health = server.get("/health").json()
    assert (health["status"], health["device"]["state"]) == ("healthy", "busy")
    refused = server.chat("one too many")
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    engine.let_go.set()
    join(*threads)
    assert statuses == [200] * 4
    until(lambda: server.get("/health").json()["device"]["state"] == "free")


class UnpluggedEngine(EchoRunner):
    def check(self) -> None:
        raise SetupError("The model is gone.", next_step="Bring it back.")


def test_a_server_that_lost_its_model_is_unhealthy_and_refuses(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(), UnpluggedEngine())
    health = server.get("/health").json()
    assert (health["status"], health["note"]) == ("unhealthy", "The model is gone. Bring it back.")
    answer = server.chat()
    assert (answer.status_code, answer.json()["code"], answer.json()["next_step"]) == (
        503,
        "not_set_up",
        "Bring it back.",
    )


class BrokenEngine(EchoRunner):
    def describe(self) -> dict[str, object]:
        raise RuntimeError("a secret of the server")


def test_no_traceback_reaches_a_client(serve: Callable[..., Server], settings: Callable[..., Settings]) -> None:
    answer = serve(settings(), BrokenEngine()).get("/health")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_a_body_that_comes_byte_by_byte_does_not_hold_the_others_up(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(150)]
    for connection in slow:
        connection.sendall(
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
    assert server.get("/health").status_code == 200
    assert server.chat("quick").status_code == 200
    for connection in slow:
        connection.close()
