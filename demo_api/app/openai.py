"""OpenAI's routes, so that any OpenAI client can ask either engine."""

from __future__ import annotations

import time

from flask import Flask, Response, jsonify

from demo_api import bodies, event_stream, openai_api
from demo_api.app.asked import Places, client_is_gone, json_body
from demo_api.app.chat import begin_in_place, event_response
from demo_api.app.request_ids import note_run
from demo_api.config import Settings
from demo_api.openai_api import Completions
from demo_api.service import Service


def add_openai(app: Flask, service: Service, settings: Settings, places: Places) -> None:
    """``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions``."""
    began = time.time()

    @app.get("/v1/models")
    def models() -> Response:
        return jsonify(openai_api.models(service.describe()["model"], began))

    @app.post("/v1/chat/completions")
    def chat_completions() -> Response:
        return complete(openai_api.parse_chat(json_body()))

    @app.post("/v1/completions")
    def completions() -> Response:
        return complete(openai_api.parse_text(json_body()))

    def complete(asked: Completions) -> Response:
        service.check()
        openai_api.check_model(asked, service.describe()["model"])
        begun, question = time.time(), asked.question()
        if asked.stream:
            asking = begin_in_place(service, places, question)
            chunks = openai_api.Chunks(asked, asking.run_id, begun)
            return event_response(event_stream.stream(chunks, asking.events, asking.leave), places.leave)
        with places.taken():
            asking = service.begin(question)
            note_run(asking.run_id, question.request.prompt)
            run = asking.wait(client_is_gone(settings))
        bodies.check(run, seconds=time.time() - begun)
        return jsonify(openai_api.completion(asked, run))
