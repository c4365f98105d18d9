"""Puts the HTTP door together: checks, routes and headers around one engine."""

from __future__ import annotations

import atexit

from flask import Flask

from demo_api.config import Settings
from demo_api.messages import Run
from demo_api.queue.door import Door
from demo_api.web.access import add_access
from demo_api.web.chat import add_chat
from demo_api.web.cors import add_cors
from demo_api.web.docs import add_docs
from demo_api.web.engine import Engine
from demo_api.web.error_handlers import add_error_handlers
from demo_api.web.health import add_health
from demo_api.web.metrics import add_metrics
from demo_api.web.openai.routes import add_openai
from demo_api.web.page import add_page, add_security_headers
from demo_api.web.request import WaitSlots
from demo_api.web.request_log import add_request_log, log_answer
from demo_api.web.runs import add_runs


def make_worker_app(settings: Settings, engine: Door) -> Flask:
    """The application of a worker: how it is, and its metrics."""
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    add_request_log(app, settings)
    add_error_handlers(app)
    engine.listen(add_metrics(app, engine, settings))
    add_access(app, settings)
    add_health(app, engine)
    return app


def make_app(settings: Settings, engine: Engine) -> Flask:
    """The application around an engine, which starts with the first request.

    Raises:
        SetupError: the file of keys cannot be used.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["demo_api"] = engine
    atexit.register(engine.close)
    # Not now: a server that forks workers after it made the application would keep no thread.
    app.before_request(engine.start)
    slots = WaitSlots(settings.max_waiting)
    add_request_log(app, settings)
    add_security_headers(app)
    add_cors(app, settings.cors_origins)
    add_error_handlers(app)
    count_run = add_metrics(app, engine, settings)

    def on_end(run: Run) -> None:
        count_run(run)
        log_answer(run)

    engine.listen(on_end)
    add_access(app, settings)
    add_page(app)
    add_health(app, engine)
    add_chat(app, engine, settings, slots)
    add_openai(app, engine, settings, slots)
    if isinstance(engine, Door):
        add_runs(app, engine, settings, slots)
    add_docs(app, engine)
    return app
