"""What the log says: a line for each request, with the id that its answer carries too, and one for each answer."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from urllib.parse import quote

from flask import Flask, Response, g, request

from demo_api.config import Settings
from demo_api.messages import Run
from demo_api.web.dispatcher import leave_turn

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN_CHARACTERS = 60
_SHOWN_PATH = 200
_SHOWN_METHOD = 20
_OPTIONAL = (("client", "client"), ("run", "run_id"), ("key", "key"), ("prompt", "prompt"))


def note_run(run_id: str, prompt: str | None = None) -> None:
    """Notes the run that this request is about, for its line in the log. From here on the request waits for it."""
    g.run_id = run_id
    g.prompt = prompt
    leave_turn()


def add_request_log(app: Flask, settings: Settings) -> None:
    """Gives every request an id, the client's own if it is a valid one, and logs the request with it."""

    @app.before_request
    def set_id() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.started = time.monotonic()

    @app.after_request
    def log_request(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        fields = {
            "request_id": g.request_id,
            "run_id": g.get("run_id"),
            "key": g.get("key"),
            "client": request.remote_addr or None,  # a Unix socket's client has none
            "method": quote(request.method[:_SHOWN_METHOD]),
            # It may hold line ends and escape sequences; the query may hold secrets.
            "path": quote(_cut(request.path, _SHOWN_PATH)),
            "status": response.status_code,
            "seconds": round(time.monotonic() - g.started, 3),
            "prompt": _shortened(g.get("prompt")) if settings.log_prompts else None,
        }
        more = "".join(f", {name} {fields[field]}" for name, field in _OPTIONAL if fields[field] is not None)
        line = "{method} {path} {status} in {seconds:.3f} s{more} (request {request_id})"
        logger.info("%s", line.format(more=more, **fields), extra=fields)
        return response


def log_answer(run: Run) -> None:
    """Logs how fast the tokens of an answer came, as far as that is known."""
    result = run.result
    if result is None or result.answer is None:
        return
    tokens, timing = result.answer.tokens_generated, result.timing
    words = ["an answer" if tokens is None else f"{tokens} token{'' if tokens == 1 else 's'}"]
    if timing.decode_seconds is not None:
        words.append(f"in {timing.decode_seconds:.2f}s")
    if timing.decode_tokens_per_second is not None:
        words.append(f"({timing.decode_tokens_per_second:.1f} tok/s)")
    logger.info("run %s: ✓ Generated %s", run.run_id, " ".join(words), extra={"run_id": run.run_id})


def _shortened(prompt: str | None) -> str | None:
    """How a prompt begins, in quotes, as JSON writes it: it cannot end the line."""
    if prompt is None:
        return None
    return json.dumps(_cut(prompt, _SHOWN_CHARACTERS))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
