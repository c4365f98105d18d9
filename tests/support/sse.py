"""Reads server-sent events as a client does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests


def events(url: str, **headers: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What a client of server-sent events makes of the stream."""
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines(decode_unicode=True):
            if line and not line.startswith(":"):
                name, value = line.split(": ", 1)
                fields[name] = value
            elif "id" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}
