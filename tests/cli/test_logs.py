"""The log of a real server, as its operator reads it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from support.echo_runner import EchoRunner
from support.real_server import SERVE, RealServer, Site
from support.serving import Server
from support.waiting import until

from demo_api.cli.logs import JsonLines, Lines, OncePerSecond
from demo_api.config import Settings

KEY = "0123456789abcdef-key"
NAME = hashlib.sha256(KEY.encode()).hexdigest()[:8]
PROMPT = "Say this:\n2026-01-01 00:00:00,000 ERROR   forged \x1b[31m" + "and so on " * 10
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) {1,4}\S.*")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _ask(server: RealServer) -> str:
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "mine"}
    answer = requests.post(f"{server.url}/chat?q={KEY}", json={"prompt": PROMPT}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    run_id: str = answer.json()["run_id"]
    requests.get(f"{server.url}/a%0a%1b[31m/{'x' * 9}?api_key={KEY}", headers=headers, timeout=60)
    until(lambda: f"{run_id}: succeeded" in server.log() and "xxxxx" in server.log())
    return run_id


def test_json_has_an_object_on_each_line(site: Site) -> None:
    with site.serving(SERVE, log_format="json", keys=KEY) as server:
        run_id = _ask(server)
        lines = [line for line in server.log().splitlines() if line.startswith("{")]
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
    asked = next(record for record in records if record.get("path") == "/chat")
    assert (asked["method"], asked["status"], asked["request_id"]) == ("POST", 200, "mine")
    assert (asked["run_id"], asked["key"], asked["client"]) == (run_id, NAME, "127.0.0.1")
    assert asked["seconds"] > 0
    assert json.loads(asked["prompt"]).startswith("Say this:\n2026")
    assert len(asked["prompt"]) < 80
    ended = next(record for record in records if record["message"] == f"run {run_id}: succeeded")
    assert ended["run_id"] == run_id
    assert KEY not in server.log()


def test_text_has_a_line_for_each_record_and_nothing_can_be_forged(site: Site) -> None:
    with site.serving(SERVE, keys=KEY) as server:
        run_id = _ask(server)
        log = server.log()
    lines = [line for line in log.splitlines() if "demo_api:" not in line and re.match(r"\d", line)]
    assert lines
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line for line in lines if f'client 127.0.0.1, run {run_id}, key {NAME}, prompt "Say this:\\n2026' in line]
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01")]
    assert "\x1b" not in log
    assert "GET /a%0A%1B%5B31m/xxxxxxxxx 404" in log
    assert KEY not in log


def test_prompts_can_be_left_out(
    serve: Callable[..., Server], settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(settings(log_prompts="0"), EchoRunner())
    assert server.chat("a secret prompt").status_code == 200
    assert requests.post(f"{server.url}/runs", json={"prompt": "a secret prompt"}, timeout=60).status_code == 202
    until(lambda: caplog.text.count("succeeded") == 2)
    assert "POST /chat 200" in caplog.text
    assert "secret" not in caplog.text


def _record(message: str, *args: object, error: bool = False) -> logging.LogRecord:
    try:
        raise ValueError("first\n2026-01-01 00:00:00,000 INFO    forged\r\x1b[2J")
    except ValueError:
        info = sys.exc_info() if error else None
    return logging.LogRecord("a", logging.ERROR, "file", 1, message, args, info)


@pytest.mark.parametrize(
    "value", ["a\nb", "a\rb", "a\x1b[1mb", "a\u2028b", "a\u202eb", "a\x85b", "a\udce9b"], ids=ascii
)
def test_a_value_cannot_end_the_line_or_move_the_cursor(value: str) -> None:
    line = Lines().format(_record("told %s", value))
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert json.loads(JsonLines().format(_record("told %s", value)))["message"] == f"told {value}"
    assert JsonLines().format(_record("told %s", value)).isascii()


@pytest.mark.parametrize("formatter", [Lines(), JsonLines()], ids=["lines", "json"])
def test_a_message_of_any_length_makes_a_line_of_a_few_thousand_characters(formatter: logging.Formatter) -> None:
    line = formatter.format(_record("said: %s", "x" * 1_000_000))
    assert len(line) < 5000
    assert re.search(r"9960\d\d characters are left out", line)


def test_a_traceback_is_indented_and_in_json_it_is_a_field() -> None:
    first, *others = Lines().format(_record("it broke", error=True)).split("\n")
    assert LINE.fullmatch(first)
    assert len(others) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    told = json.loads(JsonLines().format(_record("it broke", error=True)))
    assert told["exception"].startswith("Traceback")


def test_what_is_said_again_within_a_second_is_dropped() -> None:
    limit = OncePerSecond()
    times = (0.0, 0.2, 0.9, 1.1, 1.2, 2.3)
    kept = []
    for seconds in times:
        record = _record("accept() failed")
        record.created = 1000 + seconds
        if limit.filter(record):
            kept.append(seconds)
    other = _record("something else")
    other.created = 1002.3
    assert (kept, limit.filter(other)) == ([0.0, 1.1, 2.3], True)
