"""The HTTP door: routes that check, submit and render. The only module that imports Flask."""

from __future__ import annotations

import atexit
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, urlencode

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, UnsupportedMediaType

from demo_api import bodies, event_stream, health
from demo_api.config import Settings
from demo_api.dispatcher import Dispatcher
from demo_api.engine import Engine
from demo_api.errors import BadRequest, DemoApiError, NoLog, TooManyWaiting
from demo_api.ledger import Ledger
from demo_api.messages import STATUSES, Request, Run, parse_request, parse_requests
from demo_api.run_folder import RunFolder
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

_LOOK_AGAIN_SECONDS = 10
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> Flask:
    """The WSGI application, for ``demo-api serve``, for tests and for ``gunicorn 'demo_api:create_app()'``.

    Args:
        settings: default: from the environment.
        engine: default: a demo engine for each device.

    Raises:
        SetupError: the settings are wrong, or the ledger cannot be used.
    """
    settings = settings or Settings.load()
    engines = [engine] if engine else [DemoRunner(settings, device) for device in settings.device_list]
    dispatcher = Dispatcher(Ledger(settings), engines, settings)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["demo_api"] = dispatcher
    atexit.register(dispatcher.close)
    # Not now: a server that forks workers after it made the application would keep no thread.
    app.before_request(dispatcher.start)
    _add_request_ids(app)
    _add_errors(app)
    _add_health(app, dispatcher, engines[0])
    _add_runs(app, dispatcher, engines[0], settings)
    return app


def endpoints(app: Flask) -> list[str]:
    """Every route, such as ``POST /chat``."""
    rules = app.url_map.iter_rules()
    return sorted(f"{method} {rule.rule}" for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})


def _add_runs(app: Flask, dispatcher: Dispatcher, engine: Engine, settings: Settings) -> None:
    history = dispatcher.ledger.history
    waiting = threading.BoundedSemaphore(settings.max_waiting)

    @app.post("/chat")
    def chat() -> Response:
        begun = time.monotonic()
        asked = parse_request(_json_body())
        _check(engine, [asked])
        with _place(waiting):
            run = dispatcher.submit([asked], _idempotency_key())[0]
            g.run_id = run.run_id
            run = dispatcher.wait(run.run_id, is_gone=_client_is_gone(settings))
        output = _kept_log(settings, run)
        return jsonify(bodies.answer(run, engine=engine.name, output=output, seconds=time.monotonic() - begun))

    @app.post("/runs")
    def submit() -> Response:
        asked = parse_requests(_json_body())
        _check(engine, asked)
        runs = dispatcher.submit(asked, _idempotency_key())
        g.run_id = runs[0].run_id
        records = [bodies.record(run, engine.name) for run in runs]
        response = jsonify({"success": True, **records[0], "runs": records})
        response.status_code = 202
        response.headers["Location"] = f"/runs/{runs[0].run_id}"
        return response

    @app.get("/runs")
    def page() -> Response:
        statuses, before, limit = _page()
        runs = history.page(statuses=statuses, before=before, limit=limit + 1)
        following = None
        if len(runs) > limit:
            query = [("status", status) for status in statuses] + [("before", runs[limit - 1].run_id), ("limit", limit)]
            following = f"/runs?{urlencode(query)}"
        return jsonify({"runs": [bodies.record(run, engine.name) for run in runs[:limit]], "next": following})

    @app.get("/runs/<run_id>")
    def show(run_id: str) -> Response:
        return jsonify(bodies.record(history.get(run_id), engine.name))

    @app.get("/runs/<run_id>/log")
    def log(run_id: str) -> Response:
        return Response(_log(settings, history.get(run_id)), mimetype="text/plain")

    @app.post("/runs/<run_id>/cancel")
    def cancel(run_id: str) -> Response:
        g.run_id = run_id
        return jsonify(bodies.record(dispatcher.cancel(run_id), engine.name))

    @app.get("/runs/<run_id>/events")
    def events(run_id: str) -> Response:
        after = _last_event_id()
        history.get(run_id)
        if not waiting.acquire(blocking=False):
            raise TooManyWaiting()
        stream = event_stream.stream(dispatcher, run_id, after, cancel_on_disconnect=settings.cancel_on_disconnect)
        response = Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
        response.call_on_close(waiting.release)
        return response


def _check(engine: Engine, asked: Sequence[Request]) -> None:
    for each in asked:
        engine.accept(each)
    engine.check()


def _json_body() -> bytes:
    if not request.is_json:
        raise UnsupportedMediaType()
    return request.get_data(cache=False)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise BadRequest(
            "The header Idempotency-Key is wrong: it is 1 to 255 visible ASCII characters.", field="Idempotency-Key"
        )
    return key


def _page() -> tuple[list[str], str | None, int]:
    """The query of ``GET /runs``, checked."""
    for name in request.args:
        if name not in ("status", "before", "limit"):
            raise BadRequest(f"The parameter '{name[:100]}' is not known.", next_step=_PARAMETERS, field=name[:100])
    statuses = request.args.getlist("status")
    for status in statuses:
        if status not in STATUSES:
            raise BadRequest(f"The status '{status[:100]}' is not known.", next_step=_PARAMETERS, field="status")
    limit = request.args.get("limit", "50")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= 200:
        raise BadRequest("The parameter 'limit' is wrong: it is 1 to 200.", next_step=_PARAMETERS, field="limit")
    return statuses, request.args.get("before"), int(limit)


_PARAMETERS = f"The parameters are status ({', '.join(STATUSES)}; repeat it for several), before (a run_id) and limit."


def _last_event_id() -> int:
    text = request.args.get("after") or request.headers.get("Last-Event-ID") or "0"
    if not re.fullmatch("[0-9]{1,9}", text):
        raise BadRequest("The last event's id is wrong: it is a number.", field="Last-Event-ID")
    return int(text)


@contextmanager
def _place(waiting: threading.BoundedSemaphore) -> Iterator[None]:
    if not waiting.acquire(blocking=False):
        raise TooManyWaiting()
    try:
        yield
    finally:
        waiting.release()


def _client_is_gone(settings: Settings) -> Callable[[], bool]:
    # Only waitress can tell. Elsewhere nobody is ever known to be gone.
    if settings.cancel_on_disconnect:
        told: Callable[[], bool] | None = request.environ.get("waitress.client_disconnected")
        if told is not None:
            return told
        logger.warning("DEMO_API_CANCEL_ON_DISCONNECT has no effect on this web server")
    return lambda: False


def _log(settings: Settings, run: Run) -> str:
    folder = run.batch_id and RunFolder(settings.state_dir / "runs" / run.batch_id)
    if not folder or not folder.path.is_dir():
        raise NoLog(f"There is no log of run {run.run_id}: it has not started yet, or the log was removed.")
    return folder.readable_log()


def _kept_log(settings: Settings, run: Run) -> str:
    """The log of a run that has ended."""
    with _log_lock:
        return _read_log(settings.state_dir / "runs" / run.batch_id) if run.batch_id else ""


_log_lock = threading.Lock()


@lru_cache(maxsize=2)  # the runs of a batch share one log, and all of them end together
def _read_log(folder: Path) -> str:
    return RunFolder(folder).readable_log()


def _add_health(app: Flask, dispatcher: Dispatcher, engine: Engine) -> None:
    @app.get("/livez")
    def livez() -> Response:
        return jsonify({"status": "alive"})

    @app.get("/readyz")
    def readyz() -> Response:
        problem = health.problem(dispatcher, engine)
        if problem is None:
            return jsonify({"status": "ready"})
        problem.fields.setdefault("retry_after", _LOOK_AGAIN_SECONDS)
        raise problem

    @app.get("/health")
    def describe_health() -> Response:
        return jsonify(health.describe(dispatcher, engine))


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
