"""Clients' connections, as waitress has them: which make room for others, and which bodies are not kept."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from werkzeug.exceptions import HTTPException

from demo_api.web.access import bearer
from demo_api.web.connections import make_room
from demo_api.web.keys import Keys

_SHORT_BODY = 2**16
"""Bytes. To see whether the request is refused takes longer than to keep so few."""


def channel_class(app: Flask, *, max_body: int, most: int) -> type[HTTPChannel]:
    """The class of the connections to an application.

    Waitress reads a body before the application sees the request, and keeps it in memory or in a temporary file.

    Args:
        max_body: bytes of the longest body that is kept. What comes after them is read, so that the client gets its
            answer, and forgotten.
        most: connections. One that comes beyond them takes the place of another.
    """
    keys: Keys = app.extensions["demo_api_keys"]
    routes = app.url_map.bind("localhost")

    def refuses(request: HTTPRequestParser) -> bool:
        """Whether the application will refuse the request, whatever its body is; of a short body that is no matter."""
        if request.content_length > max_body:
            return True
        if not request.chunked and not request.expect_continue and request.content_length <= _SHORT_BODY:
            return False
        if keys.are_needed and keys.name(bearer(request.headers.get("AUTHORIZATION", ""))) is None:
            return True
        try:
            routes.match(request.path, request.command)
        except HTTPException:  # no such path, or another method
            return True
        return False

    class Parser(HTTPRequestParser):  # type: ignore[misc]
        """Reads one request."""

        body_rcv: Any
        expect_continue: bool

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            if self.body_rcv is None or not refuses(self):
                return
            if self.expect_continue:  # the client waits for leave to send it
                self.body_rcv, self.expect_continue = None, False
                self.headers["CONNECTION"] = "close"  # it may send it all the same
            else:
                self._forget_body()

        def received(self, data: bytes) -> int:
            consumed: int = super().received(data)
            if self.chunked and self.body_bytes_received > max_body:
                self._forget_body()
            return consumed

        def _forget_body(self) -> None:
            if not isinstance(self.body_rcv.buf, _Forgotten):
                length = len(self.body_rcv)
                self.body_rcv.buf.close()
                self.body_rcv.buf = _Forgotten(length)

    class Channel(HTTPChannel):  # type: ignore[misc]
        """One connection."""

        parser_class = Parser

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if len(self._map) > most:
                make_room([each for each in self._map.values() if isinstance(each, HTTPChannel)], most)

    return Channel


class _Forgotten:
    """Takes the place of waitress's buffer, and knows how much has come: a client that sends chunks does not say it."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes) -> None:
        self._length += len(data)

    def getfile(self) -> BytesIO:
        return BytesIO()

    def close(self) -> None:
        """There is nothing to close."""
