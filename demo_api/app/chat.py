"""The routes that both engines have: one prompt, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flask import Flask, Response, g, jsonify

from demo_api import bodies, event_stream, health
from demo_api.app.asked import Places, client_is_gone, idempotency_key, json_body
from demo_api.app.request_ids import note_run
from demo_api.config import Settings
from demo_api.direct.model import Question
from demo_api.event_stream import Events
from demo_api.messages import parse_request
from demo_api.service import Asking, Service

_LOOK_AGAIN_SECONDS = 10


def add_chat(app: Flask, service: Service, settings: Settings, places: Places) -> None:
    """``/chat`` and ``/chat/stream``."""

    @app.post("/chat")
    def chat() -> Response:
        begun = time.monotonic()
        question = Question.of(parse_request(json_body()))
        with places.taken():
            asking = service.begin(question, idempotency_key())
            note_run(asking.run_id, question.request.prompt)
            run = asking.wait(client_is_gone(settings))
        seconds = time.monotonic() - begun
        return jsonify(bodies.answer(run, engine=service.engine_name, output=asking.output(run), seconds=seconds))

    @app.post("/chat/stream")
    def chat_stream() -> Response:
        question = Question.of(parse_request(json_body()))
        asking = begin_in_place(service, places, question, idempotency_key())
        return event_response(event_stream.stream(Events(asking.run_id), asking.events, asking.leave), places.leave)


def begin_in_place(service: Service, places: Places, question: Question, key: str | None = None) -> Asking:
    """Begins what is answered by a stream, and takes a place that the stream gives back."""
    places.take()
    try:
        asking = service.begin(question, key)
    except BaseException:
        places.leave()
        raise
    note_run(asking.run_id, question.request.prompt)
    return asking


def event_response(body: Iterator[bytes], on_close: Callable[[], None]) -> Response:
    """An answer of server-sent events; ``on_close`` is called when it has ended, however it did."""
    # X-Accel-Buffering: nginx, and what is built on it, would hold events back until it has a few kilobytes of them.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = Response(body, mimetype="text/event-stream", headers=headers)
    response.call_on_close(on_close)
    return response


def add_health(app: Flask, service: Service) -> None:
    """``/health``, ``/livez`` and ``/readyz``: they answer at once, whatever runs."""

    @app.get("/livez")
    def livez() -> Response:
        return jsonify({"status": "alive"})

    @app.get("/readyz")
    def readyz() -> Response:
        problem = health.problem(service)
        if problem is None:
            return jsonify({"status": "ready"})
        problem.fields.setdefault("retry_after", _LOOK_AGAIN_SECONDS)
        raise problem if g.knows_all else health.brief(problem)

    @app.get("/health")
    def describe_health() -> Response:
        return jsonify(health.describe(service) if g.knows_all else health.describe_briefly(service))
