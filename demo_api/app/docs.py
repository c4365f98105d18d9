"""``/openapi.json``, and ``/docs``: the same for people."""

from __future__ import annotations

from functools import cache

from flask import Flask, Response, jsonify

from demo_api.app import document
from demo_api.app.failures import endpoints
from demo_api.service import Service


def add_docs(app: Flask, service: Service) -> None:
    """``/openapi.json`` and ``/docs``."""

    @cache
    def described() -> document.JsonObject:
        return document.build(endpoints(app), service.engine_name)  # when every route is there

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(described())
