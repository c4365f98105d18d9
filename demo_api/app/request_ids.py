"""A name for every request, in the log and in the answer."""

from __future__ import annotations

import logging
import re
import secrets
import time
from urllib.parse import quote

from flask import Flask, Response, g, request

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def add_request_ids(app: Flask) -> None:
    """From now on every request has a name, the client's own if it is one, and is logged with it."""

    @app.before_request
    def name_request() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.started = time.monotonic()

    @app.after_request
    def log_request(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        logger.info(
            "%s %s %d in %.3f s%s (request %s)",
            quote(request.method),
            quote(request.path),  # it may hold line ends and escape sequences
            response.status_code,
            time.monotonic() - g.started,
            f", run {g.run_id}" if "run_id" in g else "",
            g.request_id,
        )
        return response
