"""``/openapi.json``, and ``/docs``: the same for people, without a script and without anything from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from flask import Flask, Response, jsonify, request

from demo_api.app import document
from demo_api.app.document import page
from demo_api.app.failures import endpoints
from demo_api.service import Service

_STYLE = files("demo_api").joinpath("web/static/docs.css")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_docs(app: Flask, service: Service) -> None:
    """``/openapi.json``, ``/docs`` and its style."""

    @cache
    def described() -> document.JsonObject:
        return document.build(endpoints(app), service.engine_name)  # when every route is there

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(described())

    @app.get("/docs")
    def docs() -> Response:
        return Response(page.render(described(), request.host_url.rstrip("/")), mimetype="text/html", headers=_HEADERS)

    @app.get("/docs.css")
    def style() -> Response:
        return Response(_STYLE.read_bytes(), mimetype="text/css", headers=_HEADERS)
