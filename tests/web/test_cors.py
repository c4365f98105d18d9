"""Which pages of other origins may read the answers, and what every answer tells a browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from support.echo_runner import EchoRunner
from support.serving import Server

from demo_api.config import Settings
from demo_api.errors import BadRequest

FRIEND = "http://127.0.0.1:8081"
IPV6_FRIEND = "http://[::1]:8081"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
def server(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    made = settings(cors_origins=f"{FRIEND}, {IPV6_FRIEND},https://example.org")
    return serve(made, EchoRunner())


ASKED = {
    "a success": ("GET", "/health", 200),
    "a wrong path": ("GET", "/nothing", 404),
    "a wrong method": ("GET", "/chat", 405),
    "a refusal": ("POST", "/chat", 415),
    "the page": ("GET", "/", 200),
}


@pytest.mark.parametrize(("method", "path", "status"), ASKED.values(), ids=ASKED)
def test_a_named_origin_may_read_every_answer(server: Server, method: str, path: str, status: int) -> None:
    for origin in (FRIEND, IPV6_FRIEND, "https://example.org"):
        answer = requests.request(method, f"{server.url}{path}", headers={"Origin": origin}, timeout=60)
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert {"Retry-After", "X-Request-Id"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert "Origin" in answer.headers["Vary"]


OPENAI = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout,openai-organization"
)
HEADERS = {
    "a key and JSON": ("authorization,content-type", ["authorization", "content-type"]),
    "what repeats and resumes": ("idempotency-key, last-event-id", ["idempotency-key", "last-event-id"]),
    "what OpenAI's client adds": (OPENAI, OPENAI.split(",")),
    "as some browsers write them": ("Authorization, X-Request-Id", ["authorization", "x-request-id"]),
    "nothing": ("", []),
    "no names": ("a b, c:d, *, , good", ["good"]),
    "a name without end": (f"{'a' * 65}, good", ["good"]),
    "names without end": (",".join(["good"] * 100), ["good"] * 32),
}


@pytest.mark.parametrize(("asked", "allowed"), HEADERS.values(), ids=HEADERS)
def test_a_named_origin_may_send_the_headers_that_it_asks_for(server: Server, asked: str, allowed: list[str]) -> None:
    preflight = {**PREFLIGHT, "Access-Control-Request-Headers": asked}
    answer = requests.options(f"{server.url}/v1/chat/completions", headers={"Origin": FRIEND, **preflight}, timeout=60)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert [name for name in answer.headers["Access-Control-Allow-Headers"].split(", ") if name] == allowed


STRANGERS = [
    "http://127.0.0.1:8082", "https://127.0.0.1:8081", "http://127.0.0.1", "null", "http://example.org",
    "https://example.org.evil.test", "https://EXAMPLE.org", "http://:8081", "http://1:8081",
]  # fmt: skip


def test_a_stranger_may_not(server: Server) -> None:
    for origin in STRANGERS:
        for answer in (
            requests.get(f"{server.url}/health", headers={"Origin": origin}, timeout=60),
            requests.options(f"{server.url}/runs", headers={"Origin": origin, **PREFLIGHT}, timeout=60),
        ):
            assert not [name for name in answer.headers if name.startswith("Access-Control")], origin
            assert "Origin" in answer.headers["Vary"]


def test_nobody_may_unless_somebody_was_named(serve: Callable[..., Server], settings: Callable[..., Settings]) -> None:
    server = serve(settings(), EchoRunner())
    for answer in (
        requests.get(f"{server.url}/health", headers={"Origin": FRIEND}, timeout=60),
        requests.options(f"{server.url}/runs", headers={"Origin": FRIEND, **PREFLIGHT}, timeout=60),
    ):
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


WRONG = [
    "*", "127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:80", "https://host:443", "HTTP://host",
    "http://Host", "http://user@host", "ftp://host", "null", "http://a, *", "http://host:0", "http://", "http://a b",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_no_browser_would_send_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadRequest, match="DEMO_API_CORS_ORIGINS or --cors-origins"):
        Settings.load({}, {"DEMO_API_CORS_ORIGINS": text})


@pytest.mark.parametrize(("method", "path", "status"), ASKED.values(), ids=ASKED)
def test_every_answer_keeps_a_browser_from_mischief(server: Server, method: str, path: str, status: int) -> None:
    answer = requests.request(method, f"{server.url}{path}", timeout=60)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_files_of_the_page_are_served_and_nothing_else(server: Server) -> None:
    script = server.get("/static/main.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert script.headers["Cache-Control"] == "no-cache"
    again = requests.get(f"{server.url}/static/main.js", headers={"If-None-Match": script.headers["ETag"]}, timeout=60)
    assert again.status_code == 304
    for path in ("..%2findex.html", "../index.html", "%2e%2e/templates/compare.html", "nothing.js", "", "/etc/passwd"):
        answer = server.get(f"/static/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    endpoints = answer.json()["available_endpoints"]
    assert "GET /" in endpoints
    assert not [each for each in endpoints if "static" in each]
