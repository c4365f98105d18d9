"""``/openapi.json``, and ``/docs``: the same for people, without a script and without anything from elsewhere."""

from __future__ import annotations

from functools import cache

from flask import Flask, Response, jsonify, request

from demo_api.app import document
from demo_api.app.document import page
from demo_api.app.failures import endpoints
from demo_api.service import Service

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def add_docs(app: Flask, service: Service) -> None:
    """``/openapi.json`` and ``/docs``."""

    @cache
    def described() -> document.JsonObject:
        return document.build(endpoints(app), service.engine_name)  # when every route is there

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(described())

    @app.get("/docs")
    def docs() -> Response:
        text = page.render(described(), request.host_url.rstrip("/"))
        return Response(text, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})
