"""The routes that both engines have: one prompt, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flask import Flask, Response, g, jsonify

from demo_api import bodies
from demo_api.config import Settings
from demo_api.messages import Question
from demo_api.web import event_stream, health
from demo_api.web.engine import Engine, PendingRun
from demo_api.web.event_stream import Events
from demo_api.web.parse import parse_request
from demo_api.web.request import WaitSlots, client_is_gone, idempotency_key, json_body
from demo_api.web.request_log import note_run

_LOOK_AGAIN_SECONDS = 10


def add_chat(app: Flask, engine: Engine, settings: Settings, slots: WaitSlots) -> None:
    """``/chat`` and ``/chat/stream``."""

    @app.post("/chat")
    def chat() -> Response:
        begun = time.monotonic()
        question = Question.of(parse_request(json_body()))
        with slots.taken():
            pending = engine.begin(question, idempotency_key())
            note_run(pending.run_id, question.request.prompt)
            run = pending.wait(client_is_gone(settings))
        seconds = time.monotonic() - begun
        return jsonify(bodies.answer(run, engine=engine.engine_name, output=pending.output(run), seconds=seconds))

    @app.post("/chat/stream")
    def chat_stream() -> Response:
        question = Question.of(parse_request(json_body()))
        pending = begin_with_slot(engine, slots, question, idempotency_key())
        return event_response(
            event_stream.stream(Events(pending.run_id, pending.run), pending.events, pending.leave), slots.leave
        )


def begin_with_slot(engine: Engine, slots: WaitSlots, question: Question, key: str | None = None) -> PendingRun:
    """Begins what is answered by a stream, and takes a place that the stream gives back."""
    slots.take()
    try:
        pending = engine.begin(question, key)
    except BaseException:
        slots.leave()
        raise
    note_run(pending.run_id, question.request.prompt)
    return pending


def event_response(body: Iterator[bytes], on_close: Callable[[], None]) -> Response:
    """An answer of server-sent events; ``on_close`` is called when it has ended, however it did."""
    # X-Accel-Buffering: nginx, and what is built on it, would hold events back until it has a few kilobytes of them.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = Response(body, mimetype="text/event-stream", headers=headers)
    response.call_on_close(on_close)
    return response


def add_health(app: Flask, engine: Engine) -> None:
    """``/health``, ``/livez`` and ``/readyz``: they answer at once, whatever runs."""

    @app.get("/livez")
    def livez() -> Response:
        return jsonify({"status": "alive"})

    @app.get("/readyz")
    def readyz() -> Response:
        problem = health.problem(engine)
        if problem is None:
            return jsonify({"status": "ready"})
        problem.fields.setdefault("retry_after", _LOOK_AGAIN_SECONDS)
        raise problem if g.knows_all else health.brief(problem)

    @app.get("/health")
    def describe_health() -> Response:
        return jsonify(health.describe(engine) if g.knows_all else health.describe_briefly(engine))
