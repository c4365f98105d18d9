"""Answers every error as JSON, with the next step; no traceback ever reaches a client."""

from __future__ import annotations

import logging

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from demo_api.errors import DemoApiError, ErrorBody, Problem, RunFailed
from demo_api.web.openai.answers import openai_error

logger = logging.getLogger(__name__)

HTTP_ERRORS = {
    404: ("not_found", "Use one of the available endpoints."),
    405: ("method_not_allowed", "Use one of the methods in the Allow header."),
    413: ("payload_too_large", "Send at most DEMO_API_MAX_BODY bytes."),
    415: ("unsupported_media_type", 'Send JSON, and say so with the header "Content-Type: application/json".'),
}


def endpoints(app: Flask) -> list[str]:
    """Every route, such as ``POST /chat``, without the page's files, which nobody is meant to ask for by hand."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
    methods = [(rule.rule.replace("<path:", "<"), (rule.methods or set()) - {"HEAD", "OPTIONS"}) for rule in rules]
    return sorted(f"{method} {path}" for path, known in methods for method in known)


def add_error_handlers(app: Flask) -> None:
    """Makes every error of the application an answer in JSON."""

    @app.errorhandler(DemoApiError)
    def refuse(error: DemoApiError) -> Response:
        response = _error(error.status_code, error.body())
        if "retry_after" in error.fields:
            response.headers["Retry-After"] = str(error.fields["retry_after"])
        if isinstance(error, RunFailed) and request.path.startswith("/v1/"):
            # OpenAI's clients repeat by themselves what failed with 409 or 5xx: each time another run of minutes.
            response.headers["X-Should-Retry"] = "false"
        return response

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        status = error.code or 500
        code, next_step = HTTP_ERRORS.get(status, ("bad_request", "Correct the request and send it again."))
        next_step = next_step.replace("DEMO_API_MAX_BODY", str(app.config["MAX_CONTENT_LENGTH"]))
        sentence = f"{error.name}: {request.method[:20]} {request.path[:200]}."
        sentence = str(error.description) if status == 415 else sentence
        body: Problem = {"success": False, "error": sentence, "code": code, "next_step": next_step}
        if status == 404:
            body["available_endpoints"] = endpoints(app)
        response = _error(status, body)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        logger.exception("request %s failed", g.request_id, extra={"request_id": g.request_id})
        return _error(500, DemoApiError("The server failed to answer.").body())


def _error(status: int, problem: Problem) -> Response:
    body: ErrorBody = {**problem, "request_id": g.request_id}
    response = jsonify(openai_error(body, status) if request.path.startswith("/v1/") else body)
    response.status_code = status
    return response
