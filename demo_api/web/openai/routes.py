"""OpenAI's routes, so that any OpenAI client can ask either engine."""

from __future__ import annotations

import time

from flask import Flask, Response, jsonify

from demo_api.config import Settings
from demo_api.web import event_stream
from demo_api.web.chat import begin_with_slot, event_response
from demo_api.web.engine import Engine
from demo_api.web.openai import answers
from demo_api.web.openai.requests import ChatCompletions, Completions, TextCompletions, check_model
from demo_api.web.parse import parse_body
from demo_api.web.request import WaitSlots, client_is_gone, json_body
from demo_api.web.request_log import note_run


def add_openai(app: Flask, engine: Engine, settings: Settings, slots: WaitSlots) -> None:
    """``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions``."""
    began = time.time()

    @app.get("/v1/models")
    def models() -> Response:
        return jsonify(answers.models(engine.describe()["model"], began))

    @app.post("/v1/chat/completions")
    def chat_completions() -> Response:
        return complete(parse_body(ChatCompletions, json_body()))

    @app.post("/v1/completions")
    def completions() -> Response:
        return complete(parse_body(TextCompletions, json_body()))

    def complete(asked: Completions) -> Response:
        engine.check()
        check_model(asked, engine.describe()["model"])
        begun, question = time.time(), asked.question()
        if asked.stream:
            pending = begin_with_slot(engine, slots, question)
            chunks = answers.Chunks(asked, pending.run_id, begun, pending.run)
            return event_response(event_stream.stream(chunks, pending.events, pending.leave), slots.leave)
        with slots.taken():
            pending = engine.begin(question)
            note_run(pending.run_id, question.request.prompt)
            run = pending.wait(client_is_gone(settings))
        return jsonify(answers.completion(asked, run, seconds=time.time() - begun))
