"""``/openapi.json``, and ``/docs``: the same for people, without a script and without anything from elsewhere."""

from __future__ import annotations

from functools import cache

from flask import Flask, Response, jsonify, request

from demo_api.web import openapi as document
from demo_api.web.engine import Engine
from demo_api.web.error_handlers import endpoints
from demo_api.web.openapi import page

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def add_docs(app: Flask, engine: Engine) -> None:
    """``/openapi.json`` and ``/docs``."""

    @cache
    def described() -> document.JsonObject:
        return document.build(endpoints(app), engine.engine_name)  # when every route is there

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(described())

    @app.get("/docs")
    def docs() -> Response:
        text = page.render(described(), request.host_url.rstrip("/"))
        return Response(text, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})
