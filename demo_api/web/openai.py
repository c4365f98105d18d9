"""OpenAI's routes, so that any OpenAI client can ask either engine."""

from __future__ import annotations

import time

from flask import Flask, Response, jsonify

from demo_api import bodies
from demo_api.config import Settings
from demo_api.web import event_stream, openai_api
from demo_api.web.chat import begin_with_slot, event_response
from demo_api.web.engine import Engine
from demo_api.web.openai_api import Completions
from demo_api.web.request import WaitSlots, client_is_gone, json_body
from demo_api.web.request_log import note_run


def add_openai(app: Flask, engine: Engine, settings: Settings, slots: WaitSlots) -> None:
    """``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions``."""
    began = time.time()

    @app.get("/v1/models")
    def models() -> Response:
        return jsonify(openai_api.models(engine.describe()["model"], began))

    @app.post("/v1/chat/completions")
    def chat_completions() -> Response:
        return complete(openai_api.parse_chat(json_body()))

    @app.post("/v1/completions")
    def completions() -> Response:
        return complete(openai_api.parse_text(json_body()))

    def complete(asked: Completions) -> Response:
        engine.check()
        openai_api.check_model(asked, engine.describe()["model"])
        begun, question = time.time(), asked.question()
        if asked.stream:
            pending = begin_with_slot(engine, slots, question)
            chunks = openai_api.Chunks(asked, pending.run_id, begun)
            return event_response(event_stream.stream(chunks, pending.events, pending.leave), slots.leave)
        with slots.taken():
            pending = engine.begin(question)
            note_run(pending.run_id, question.request.prompt)
            run = pending.wait(client_is_gone(settings))
        bodies.check(run, seconds=time.time() - begun)
        return jsonify(openai_api.completion(asked, run))
