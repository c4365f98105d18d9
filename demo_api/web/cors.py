"""Lets pages of named origins, and of no others, read the answers in a browser (CORS).

It does without flask-cors, which takes an origin with an IPv6 address for a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from flask import Flask, Response, request

_METHODS = "GET, POST"
_EXPOSED_HEADERS = "Location, Retry-After, X-Request-Id, X-Should-Retry"
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
_MOST_HEADERS = 32
_PREFLIGHT_SECONDS = 600


def add_cors(app: Flask, origins: Collection[str]) -> None:
    """Lets pages of these origins ask, as https://fetch.spec.whatwg.org/#http-cors-protocol says.

    This must come before the check of keys: a preflight never has one.
    """
    if not origins:
        return

    @app.before_request
    def answer_preflight() -> Response | None:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        response = Response(status=204)
        if request.headers.get("Origin") in origins:
            response.headers["Access-Control-Allow-Methods"] = _METHODS
            response.headers["Access-Control-Allow-Headers"] = ", ".join(_asked_headers())
            response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
        return response

    @app.after_request
    def allow(response: Response) -> Response:
        response.vary.add("Origin")  # or a cache would give one origin's answer to another
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
        return response


def _asked_headers() -> list[str]:
    """The headers that a page wants to send: clients have some of their own, such as OpenAI's ``x-stainless-os``."""
    asked = request.headers.get("Access-Control-Request-Headers", "").lower().split(",", _MOST_HEADERS)[:_MOST_HEADERS]
    return [name for each in asked if _HEADER_NAME.fullmatch(name := each.strip())]
