"""The HTTP door: routes that check, submit and render. The only module that imports Flask."""

from __future__ import annotations

import atexit
import logging
import re
import secrets
import time
from urllib.parse import quote

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, UnsupportedMediaType

from demo_api.config import Settings
from demo_api.dispatcher import Dispatcher
from demo_api.errors import DemoApiError, SetupError
from demo_api.messages import Engine, answer_body, parse_request
from demo_api.runner import DemoRunner

logger = logging.getLogger(__name__)

MAX_BODY = 2**20
"""Bytes of a request's body; the longest prompt, with every character escaped, needs 393,216."""

_HTTP_ERRORS = {
    404: ("not_found", "Use one of the available endpoints."),
    405: ("method_not_allowed", "Use one of the methods in the Allow header."),
    413: ("payload_too_large", f"Send at most {MAX_BODY} bytes."),
    415: ("unsupported_media_type", 'Send JSON, and say so with the header "Content-Type: application/json".'),
}

DEMO_NOTE = (
    "Every request runs the demo as a child process that loads the model anew: expect seconds on the CPU edition, "
    "45 seconds to 5 minutes on a Tenstorrent device."
)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> Flask:
    """The WSGI application, for ``demo-api serve``, for tests and for ``gunicorn 'demo_api:create_app()'``.

    Args:
        settings: default: from the environment.
        engine: default: the demo engine.

    Raises:
        SetupError: the settings are wrong.
    """
    settings = settings or Settings.load()
    engine = engine or DemoRunner(settings)
    dispatcher = Dispatcher(engine, max_queue=settings.max_queue)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["demo_api"] = dispatcher
    atexit.register(dispatcher.close)
    _add_request_ids(app)
    _add_errors(app)
    _add_routes(app, dispatcher, engine)
    return app


def endpoints(app: Flask) -> list[str]:
    """Every route, such as ``POST /chat``."""
    rules = app.url_map.iter_rules()
    return sorted(f"{method} {rule.rule}" for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})


def _add_routes(app: Flask, dispatcher: Dispatcher, engine: Engine) -> None:
    @app.post("/chat")
    def chat() -> Response:
        if not request.is_json:
            raise UnsupportedMediaType()
        asked = parse_request(request.get_data(cache=False))
        engine.accept(asked)
        engine.check()
        pending = dispatcher.submit(asked)
        g.run_id = pending.run.run_id
        return jsonify(answer_body(pending.run, pending.result.result(), engine.name))

    @app.get("/health")
    def health() -> Response:
        queue = dispatcher.describe()
        answer: dict[str, object] = {"status": "healthy", "note": DEMO_NOTE, "engine": engine.name}
        try:
            engine.check()
            answer.update(engine.describe())
        except SetupError as error:
            answer.update(status="unhealthy", note=f"{error} {error.next_step}", model=None, model_loaded=False)
        state = "busy" if queue["running"] or engine.device_is_taken() else "free"
        return jsonify({**answer, "queue": queue, "device": {"state": state}})


def _add_errors(app: Flask) -> None:
    @app.errorhandler(DemoApiError)
    def refuse(error: DemoApiError) -> Response:
        response = _error(error.status_code, error.body())
        if "retry_after" in error.fields:
            response.headers["Retry-After"] = str(error.fields["retry_after"])
        return response

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        status = error.code or 500
        code, next_step = _HTTP_ERRORS.get(status, ("bad_request", "Correct the request and send it again."))
        sentence = f"{error.name}: {request.method} {request.path}."
        body: dict[str, object] = {"success": False, "error": sentence, "code": code, "next_step": next_step}
        if status == 404:
            body["available_endpoints"] = endpoints(app)
        response = _error(status, body)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        logger.exception("request %s failed", g.request_id)
        return _error(500, DemoApiError("The server failed to answer.").body())


def _error(status: int, body: dict[str, object]) -> Response:
    response = jsonify({**body, "request_id": g.request_id})
    response.status_code = status
    return response


def _add_request_ids(app: Flask) -> None:
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
