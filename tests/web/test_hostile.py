"""Requests that mean harm, sent as bytes to a real server on a real port."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import requests
from support.echo_runner import EchoRunner
from support.serving import Server, clean_environ, serving
from support.waiting import until

from demo_api.cli.logs import Lines
from demo_api.config import Settings

KEY = "0123456789abcdef-key"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    with serving() as start:

        def make(**flags: object) -> Server:
            folder = tmp_path_factory.mktemp("state")
            settings = Settings.load({"state_dir": folder, "port": 0, "drain": 0} | flags, clean_environ())
            return start(settings, EchoRunner())

        yield make


@pytest.fixture(scope="module")
def server(make: Callable[..., Server]) -> Server:
    """One for all: whatever it was sent, it must go on."""
    return make()


@pytest.fixture(scope="module")
def locked(make: Callable[..., Server]) -> Server:
    """One with a key."""
    return make(keys=KEY)


def send(server: Server, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Sends a request as it stands, and reads one answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        with closing(http.client.HTTPResponse(connection)) as answer:
            answer.begin()
            return answer.status, dict(answer.getheaders()), answer.read()


@pytest.mark.parametrize(
    "line",
    [b"GET /" + b"a" * 200_000, b"GET /" + b"%0a" * 60_000, b"A" * 200_000 + b" /"],
    ids=["path", "quoted path", "method"],
)
def test_a_line_of_the_log_shows_the_beginning_only(
    server: Server, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    caplog.set_level("INFO")
    status, _, body = send(server, line + b" HTTP/1.1", HOST)
    assert status in (400, 404, 405)
    assert len(body) < 10_000
    until(lambda: status == 400 or any(str(status) in record.getMessage() for record in caplog.records))
    assert all(len(Lines().format(record)) < 2000 for record in caplog.records)


HOST = b"Host: 127.0.0.1"
JSON = b"Content-Type: application/json"


def post(server: Server, body: bytes, *headers: bytes) -> tuple[int, dict[str, str], bytes]:
    length = b"Content-Length: %d" % len(body)
    return send(server, b"POST /chat HTTP/1.1", HOST, JSON, length, *headers, body=body)


def is_well(server: Server) -> bool:
    return server.chat("still there?").json()["response"] == "still there?"


# Headers

FORGED = {
    "a line end": b"a\nX-Injected: 1",
    "a bare return": b"a\rX-Injected: 1",
    "percent": b"a%0d%0aX-Injected:1",
    "a NUL": b"a\0b",
    "not ASCII": "ä".encode(),
    "an escape sequence": b"\x1b[2J",
    "65 characters": b"a" * 65,
    "64 KiB": b"a" * 2**16,
    "markup": b"<script>",
}


@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
def test_a_forged_request_id_goes_nowhere(server: Server, caplog: pytest.LogCaptureFixture, value: bytes) -> None:
    caplog.set_level("INFO")
    status, headers, _ = send(server, b"GET /livez HTTP/1.1", HOST, b"X-Request-Id: " + value)
    assert status in (200, 400)
    assert "X-Injected" not in headers
    if status == 200:
        assert re.fullmatch("[0-9a-f]{16}|a", headers["X-Request-Id"])
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert is_well(server)


@pytest.mark.parametrize("name", ["Idempotency-Key", "Last-Event-ID", "Content-Type", "Accept"])
def test_a_header_with_a_line_end_in_it_answers_with_no_header_of_the_clients(server: Server, name: str) -> None:
    value = f"{name}: a\nX-Injected: 1".encode()
    status, headers, _ = send(server, b"POST /runs HTTP/1.1", HOST, value, b"Content-Length: 2", body=b"{}")
    assert status in (400, 415)
    assert "X-Injected" not in headers


KEYS = {
    "two headers, the right one first": [f"Bearer {KEY}", "Bearer no"],
    "two headers, the right one last": ["Bearer no", f"Bearer {KEY}"],
    "the right one twice": [f"Bearer {KEY}"] * 2,
    "not ASCII": ["Bearer ä" + KEY],
    "full width": ["Bearer \uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19abcdef-key"],
    "a NUL at its end": [f"Bearer {KEY}\0"],
    "in capitals": [f"Bearer {KEY.upper()}"],
    "very long": ["Bearer " + KEY * 5000],
}


@pytest.mark.parametrize("values", KEYS.values(), ids=KEYS)
def test_what_is_not_exactly_one_key_is_none(locked: Server, values: list[str]) -> None:
    headers = [f"Authorization: {value}".encode() for value in values]
    status, _, body = send(locked, b"GET /runs HTTP/1.1", HOST, *headers)
    assert status in (400, 401)
    assert KEY.encode() not in body
    assert send(locked, b"GET /runs HTTP/1.1", HOST, f"Authorization: Bearer {KEY}".encode())[0] == 200


@pytest.mark.parametrize("names", [(b"evil.example", b"127.0.0.1"), (b"127.0.0.1", b"evil.example")], ids=str)
def test_two_names_are_none(server: Server, names: tuple[bytes, ...]) -> None:
    assert send(server, b"GET /livez HTTP/1.1", *(b"Host: " + name for name in names))[0] in (400, 421)


def test_the_name_in_the_request_line_counts_for_nothing(server: Server) -> None:
    assert send(server, b"GET http://evil.example/livez HTTP/1.1", b"Host: evil.example")[0] in (400, 421)
    assert send(server, b"GET /livez HTTP/1.1", HOST, b"X-Forwarded-Host: evil.example")[0] == 200


def test_who_says_no_name_is_no_browser(server: Server) -> None:
    assert send(server, b"GET /livez HTTP/1.0")[0] == 200


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Real-Ip", b"Forwarded"])
def test_a_client_cannot_choose_the_address_that_is_counted(make: Callable[..., Server], name: bytes) -> None:
    server = make(rate_limit=2)
    told = [send(server, b"GET /runs HTTP/1.1", HOST, name + b": 192.0.2.%d" % n)[0] for n in range(3)]
    assert told == [200, 200, 429]


# Paths

PATHS = [
    "/runs/..%2f..%2f..%2fetc%2fpasswd/log", "/runs/../../../../etc/passwd", "/runs/%2e%2e/log", "/runs/%00/log",
    "/runs/ledger.db/log", "/runs/a%0d%0aX-Injected:%201/log", "/runs/%c0%ae%c0%ae/log", "/runs/%ff/log",
    "/runs/'%20OR%201=1--", "/runs/" + "a" * 8000, "/runs/{0.__class__}", "/runs/%25s%25n", "/runs/*/events",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_run_id_that_is_a_trick_is_a_run_that_is_not_there(server: Server, path: str) -> None:
    status, headers, body = send(server, f"GET {path} HTTP/1.1".encode(), HOST)
    assert status == 404, body
    assert "X-Injected" not in headers
    error = json.loads(body)
    assert error["code"] in ("no_such_run", "not_found")
    assert b"root:" not in body


@pytest.mark.parametrize(
    "path", ["/health/../runs", "/livez/..%2fruns", "/%2e/runs", "/RUNS", "/runs;/livez", "/runs/"]
)
def test_no_way_of_writing_a_path_leads_past_the_key(locked: Server, path: str) -> None:
    assert send(locked, f"GET {path} HTTP/1.1".encode(), HOST)[0] == 401


@pytest.mark.parametrize("method", [b"HEAD", b"TRACE", b"PUT", b"BREW", b"OPTIONS"])
def test_no_method_leads_past_the_key(locked: Server, method: bytes) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(method + b" /runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if method == b"OPTIONS":  # what a browser asks before it sends a key
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b""
    else:
        assert head.startswith(b"HTTP/1.1 401")
        assert b"run_id" not in body


# Bodies

BODIES = {
    "lists in lists": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "half of that": b"[" * 500_000,
    "a number without end": b'{"prompt": "a", "max_tokens": ' + b"9" * 500_000 + b"}",
    "a huge exponent": b'{"prompt": "a", "temperature": 1e999999999}',
    "half a character": b'{"prompt": "\\ud800"}',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "the same field twice": b'{"prompt": "a", "prompt": ["b"]}',
    "a field with a long name": b'{"' + b"a" * 900_000 + b'": 1}',
    "100,000 fields": b"{" + b",".join(b'"f%d":1' % number for number in range(60_000)) + b"}",
    "a prototype": b'{"prompt": "a", "__proto__": {"max_tokens": 1}, "__class__": 1}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_a_trick_is_a_bad_request(server: Server, body: bytes) -> None:
    status, _, answer = post(server, body)
    assert status == 400, answer
    error = json.loads(answer)
    assert error["code"] == "bad_request"
    assert len(answer) < 2000
    assert is_well(server)


def test_a_length_that_is_a_lie_is_refused(server: Server) -> None:
    for lines in (
        [b"Content-Length: -1"], [b"Content-Length: 5x"], [b"Content-Length: 2", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 2", b"Content-Length: 3"], [b"Transfer-Encoding: gzip, chunked, chunked"],
    ):  # fmt: skip
        status, _, _ = send(server, b"POST /chat HTTP/1.1", HOST, JSON, *lines, body=b"{}\r\n")
        assert status in (400, 411, 501), lines
    assert is_well(server)


def idle_client(server: Server, address: str = "127.0.0.1") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60, source_address=(address, 0))


def is_open(client: socket.socket) -> bool:
    client.settimeout(0.01)
    try:
        return client.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def test_idle_connections_of_one_address_keep_nobody_out(
    serve: Callable[..., Server], settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.web.server._SPARE_CONNECTIONS", 20)
    engine = EchoRunner(paused=True)
    server = serve(settings(max_queue=4), engine)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waiting = pool.submit(server.chat, "waits from the beginning")
        engine.entered.wait(60)
        stranger = stack.enter_context(closing(idle_client(server, "127.0.0.2")))
        crowd = [stack.enter_context(closing(idle_client(server))) for _ in range(200)]
        assert server.get("/livez").status_code == 200
        until(lambda: sum(map(is_open, crowd)) <= server.settings.max_waiting + 8 + 20)
        assert is_open(stranger)
        engine.let_go.set()
        assert waiting.result(20).json()["response"] == "waits from the beginning"


def kept() -> int:
    """Bytes of the bodies that are being read: waitress puts them into files that have no name any more."""
    sizes = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).endswith("(deleted)"):
                sizes.append(link.stat().st_size)
    return sum(sizes)


MEGABYTE = 2**20
HEADERS_OF_BODIES = {
    "welcome": ("/chat", f"Authorization: Bearer {KEY}", "Content-Length: 1048576", 400),
    "without a key": ("/chat", "X: none", "Content-Length: 1048576", 401),
    "with a wrong key": ("/chat", "Authorization: Bearer 0123456789abcdef", "Content-Length: 15728640", 401),
    "too long": ("/chat", f"Authorization: Bearer {KEY}", "Content-Length: 15728640", 413),
    "for no path": ("/nowhere", f"Authorization: Bearer {KEY}", "Content-Length: 1048576", 404),
    "for another method": ("/health", f"Authorization: Bearer {KEY}", "Content-Length: 1048576", 405),
    "chunked, without a key": ("/chat", "X: none", "Transfer-Encoding: chunked", 401),
    "chunked, too long": ("/chat", f"Authorization: Bearer {KEY}", "Transfer-Encoding: chunked", 413),
}


@pytest.mark.parametrize(("path", "key", "length", "status"), HEADERS_OF_BODIES.values(), ids=HEADERS_OF_BODIES)
def test_the_body_of_a_request_that_will_be_refused_is_not_kept(
    locked: Server, path: str, key: str, length: str, status: int
) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{key}\r\n{length}\r\n\r\n"
    is_chunked = "chunked" in length
    before = kept()  # other files without a name, such as those that a test's output goes to
    size = 2 * MEGABYTE if is_chunked else int(length.split()[1])
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + (b"%x\r\n" % size if is_chunked else b""))
        connection.sendall(b" " * (size - 1))
        if status == 400:
            until(lambda: kept() - before > MEGABYTE // 2)
        else:
            assert locked.get("/livez").status_code == 200  # it has read what was sent before
            assert kept() - before < MEGABYTE // 8
        connection.sendall(b" \r\n0\r\n\r\n" if is_chunked else b" ")
        with closing(http.client.HTTPResponse(connection)) as answer:
            answer.begin()
            assert (answer.status, json.loads(answer.read())["success"]) == (status, False)


def test_a_client_that_asks_for_leave_to_send_too_much_is_refused_at_once(server: Server) -> None:
    status, headers, body = send(
        server, b"POST /chat HTTP/1.1", HOST, JSON, b"Expect: 100-continue", b"Content-Length: 2000000"
    )
    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
    assert headers["Connection"] == "close"


def test_a_body_without_end_is_refused_before_it_fills_the_memory(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    chunk = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
    sent = 0
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"\r\n".join([b"POST /chat HTTP/1.1", HOST, JSON, b"Transfer-Encoding: chunked", b"", b""]))
        try:
            while sent < 64 * 2**20:
                connection.sendall(chunk)
                sent += 2**16
        except OSError:
            pass  # it hung up
    assert sent < 40 * 2**20  # 16 MiB, and what is on its way
    assert is_well(server)


def test_bodies_that_are_never_sent_take_no_thread_from_the_others(locked: Server) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    head = b"\r\n".join([b"POST /chat HTTP/1.1", HOST, JSON, b"Content-Length: 1000000", b"", b"{"])
    slow = [socket.create_connection((host, int(port))) for _ in range(300)]
    try:
        for connection in slow:
            connection.sendall(head)
        assert requests.get(f"{locked.url}/livez", timeout=60).status_code == 200
        assert requests.get(f"{locked.url}/runs", timeout=60).status_code == 401
    finally:
        for connection in slow:
            connection.close()


def test_the_key_is_in_nothing_that_is_kept(locked: Server) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"prompt": "Hello"}
    answer = requests.post(f"{locked.url}/chat?key={KEY}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200
    for path in (f"/runs/{answer.json()['run_id']}", "/health", "/metrics", "/runs"):
        assert KEY not in requests.get(f"{locked.url}{path}", headers=headers, timeout=60).text
    kept = [path for path in locked.settings.state_dir.rglob("*") if path.is_file()]
    assert any(path.name.startswith("ledger.db") for path in kept)
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
