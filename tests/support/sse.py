"""The one reader of server-sent events in the tests: reads them as a client does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests


def events(url: str, *, body: object = None, **headers: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The number, the kind and the data of each event, as they come.

    Args:
        body: is sent as JSON with POST; without one it is a GET.
    """
    method = "GET" if body is None else "POST"
    with requests.request(method, url, json=body, headers=headers, stream=True, timeout=60) as answer:
        for fields in read_events(answer):
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])


def read_events(answer: requests.Response) -> Iterator[dict[str, str]]:
    """The fields of each event of a streamed answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in answer.iter_lines(decode_unicode=True):
        if line and not line.startswith(":"):
            name, value = line.split(": ", 1)
            fields[name] = value
        elif not line:
            if "data" in fields:
                yield fields
            fields = {}
