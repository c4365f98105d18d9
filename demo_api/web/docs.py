"""``/openapi.json``, and ``/docs``: the same as a page for people."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Flask, Response, jsonify, request
from jinja2 import StrictUndefined

from demo_api.web.engine import Engine
from demo_api.web.openapi import document, page
from demo_api.web.openapi.operation import JSON, Content, Operation

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def add_docs(app: Flask, engine: Engine) -> None:
    """``/openapi.json`` and ``/docs``."""
    app.jinja_options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}

    @cache
    def described() -> dict[str, Any]:
        return document.build(app, engine.engine_name)  # when every route is there

    @app.get("/openapi.json")
    @Operation(
        "server",
        "This description",
        "OpenAPI 3.1. It differs by engine: the direct one has no runs.",
        answers={JSON: Content(dict[str, Any])},
    )
    def get_openapi() -> Response:
        return jsonify(described())

    @app.get("/docs")
    def show_docs() -> Response:
        text = page.render(described(), request.host_url.rstrip("/"))
        return Response(text, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})
