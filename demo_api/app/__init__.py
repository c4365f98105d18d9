"""The HTTP door: routes that check, submit and render. The only package that imports Flask."""

from __future__ import annotations

import atexit

from flask import Flask

from demo_api.app.asked import Places
from demo_api.app.chat import add_chat, add_health
from demo_api.app.cors import add_cors
from demo_api.app.docs import add_docs
from demo_api.app.failures import add_failures, endpoints
from demo_api.app.guard import add_guard
from demo_api.app.metrics import add_metrics
from demo_api.app.openai import add_openai
from demo_api.app.page import add_page, add_security_headers
from demo_api.app.request_ids import add_request_ids
from demo_api.app.runs import add_runs
from demo_api.config import Settings
from demo_api.direct import Direct, make_model
from demo_api.dispatcher import Dispatcher
from demo_api.engine import Engine
from demo_api.ledger import Ledger
from demo_api.runner import DemoRunner
from demo_api.service import Service

__all__ = ["create_app", "endpoints"]


def create_app(settings: Settings | None = None, engine: Engine | Direct | None = None) -> Flask:
    """The WSGI application, for ``demo-api serve``, for tests and for ``gunicorn 'demo_api:create_app()'``.

    Args:
        settings: default: from the environment.
        engine: default: as the settings say, a demo engine for each device or a direct engine.

    Raises:
        SetupError: the settings are wrong, or the ledger cannot be used.
    """
    settings = settings or Settings.load()
    service = _service(settings, engine)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["demo_api"] = service
    atexit.register(service.close)
    # Not now: a server that forks workers after it made the application would keep no thread.
    app.before_request(service.start)
    places = Places(settings.max_waiting)
    add_request_ids(app, settings)
    add_security_headers(app)
    add_cors(app, settings.cors_origin_list)
    add_failures(app)
    add_metrics(app, service, settings)
    add_guard(app, settings)
    add_page(app)
    add_health(app, service)
    add_chat(app, service, settings, places)
    add_openai(app, service, settings, places)
    if isinstance(service, Dispatcher):
        add_runs(app, service, places)
    add_docs(app, service)
    return app


def _service(settings: Settings, engine: Engine | Direct | None) -> Service:
    if isinstance(engine, Direct):
        return engine
    if engine is None and settings.engine == "direct":
        return Direct(make_model(settings), settings)
    engines = [engine] if engine else [DemoRunner(settings, device) for device in settings.device_list]
    return Dispatcher(Ledger(settings), engines, settings)
