"""``/chat`` and ``/chat/stream``: the routes of both engines that answer one prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flask import Flask, Response, jsonify

from demo_api import bodies
from demo_api.bodies import ChatAnswer
from demo_api.config import Settings
from demo_api.errors import IdempotencyConflict
from demo_api.messages import Question, Request
from demo_api.web import event_stream
from demo_api.web.engine import Engine, PendingRun
from demo_api.web.event_stream import EVENTS, Events
from demo_api.web.openapi import examples, refusals
from demo_api.web.openapi.operation import JSON, STREAM, Content, Operation
from demo_api.web.parse import parse_request
from demo_api.web.request import IDEMPOTENCY_KEY, WaitSlots, client_is_gone, idempotency_key, json_body
from demo_api.web.request_log import note_run


def add_chat(app: Flask, engine: Engine, settings: Settings, slots: WaitSlots) -> None:
    """Adds the routes."""
    name = engine.engine_name
    is_demo = name == "demo"
    action = "Runs the demo with it as a child process" if is_demo else "Asks the model in memory"
    parameters = (IDEMPOTENCY_KEY,) if is_demo else ()
    refused = (*refusals.BODY, *refusals.ACCEPTED[name], *refusals.WAITING)
    if is_demo:
        refused += refusals.of(IdempotencyConflict)
    example, output = examples.succeeded(name), examples.LOG if is_demo else None

    @app.post("/chat")
    @Operation(
        "chat",
        "Answer one prompt",
        f"{action}, and waits for the answer.",
        body=Content(Request, examples.BODY),
        answers={JSON: Content(ChatAnswer, bodies.answer(example, engine=name, output=output, seconds=0.651))},
        parameters=parameters,
        refusals=(*refused, *refusals.ANSWERED[name]),
    )
    def chat() -> Response:
        started = time.monotonic()
        question = Question.of(parse_request(json_body()))
        with slots.taken():
            pending = engine.begin(question, idempotency_key())
            note_run(pending.run_id, question.request.prompt)
            run = pending.wait(client_is_gone(settings))
        seconds = time.monotonic() - started
        return jsonify(bodies.answer(run, engine=name, output=pending.output(run), seconds=seconds))

    @app.post("/chat/stream")
    @Operation(
        "chat",
        "Answer one prompt, as events",
        f"{action}, and tells what happens as it happens. The last event is `done`, whether the run has an answer or "
        "not.",
        body=Content(Request, examples.BODY),
        answers={STREAM: Content(EVENTS, examples.stream(name, Events(example.run_id, lambda: example)))},
        parameters=parameters,
        refusals=refused,
    )
    def chat_stream() -> Response:
        question = Question.of(parse_request(json_body()))
        is_gone = client_is_gone(settings)
        pending = begin_with_slot(engine, slots, question, idempotency_key())
        encoder = Events(pending.run_id, pending.run)
        body = event_stream.stream(encoder, pending.events, is_gone=is_gone, on_leave=pending.leave)
        return event_response(body, slots.leave)


def begin_with_slot(engine: Engine, slots: WaitSlots, question: Question, key: str | None = None) -> PendingRun:
    """Begins what is answered by a stream, and takes a slot that the stream frees when it ends."""
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
