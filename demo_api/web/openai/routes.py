"""OpenAI's routes below ``/v1``, so that any OpenAI client can ask either engine."""

from __future__ import annotations

import time

from flask import Flask, Response, jsonify

from demo_api.config import Settings
from demo_api.demo.capabilities import check_model
from demo_api.errors import ModelNotFound, SetupError
from demo_api.web import event_stream
from demo_api.web.chat import begin_with_slot, event_response
from demo_api.web.engine import Engine
from demo_api.web.openai import answers
from demo_api.web.openai.answers import (
    BrokenOff,
    ChatChunk,
    ChatCompletion,
    ChatUsageChunk,
    Model,
    Models,
    TextChunk,
    TextCompletion,
)
from demo_api.web.openai.requests import (
    ChatCompletions,
    Completions,
    TextCompletions,
    named_as_asked,
)
from demo_api.web.openapi import examples, refusals
from demo_api.web.openapi.operation import JSON, STREAM, Content, Operation
from demo_api.web.openapi.schemas import JsonObject
from demo_api.web.parse import parse_body
from demo_api.web.request import WaitSlots, client_is_gone, json_body
from demo_api.web.request_log import note_run

_MODEL: JsonObject = {
    "name": "model",
    "in": "path",
    "description": "The model's name, which may have slashes.",
    "required": True,
    "schema": {"type": "string"},
    "example": examples.MODEL,
}
_SAMPLING = {"max_tokens": 32, "temperature": 0}
_CHAT_BODY = {"model": examples.MODEL, "messages": [{"role": "user", "content": "What is 2+2?"}], **_SAMPLING}
_TEXT_BODY = {"model": examples.MODEL, "prompt": "Q: What is 2+2?\nA:", **_SAMPLING}
_CHAT = ChatCompletions.model_validate(_CHAT_BODY)
_TEXT = TextCompletions.model_validate(_TEXT_BODY)


def add_openai(app: Flask, engine: Engine, settings: Settings, slots: WaitSlots) -> None:
    """Adds the routes."""
    created = time.time()
    name = engine.engine_name
    is_demo = name == "demo"
    refused = (*refusals.BODY, *refusals.ACCEPTED[name], *refusals.WAITING)
    answered = (*refused, *refusals.ANSWERED[name])
    example = examples.succeeded(name)

    def streamed(asked: Completions) -> str:
        return examples.stream(name, answers.Chunks(asked, example.run_id, example.accepted_at, lambda: example))

    described = (*refusals.of(SetupError), *refusals.LEDGER) if is_demo else refusals.READY[name]

    def served() -> list[str]:
        models = engine.models()
        if not models:
            engine.check()  # what is being loaded has no name yet: says when to ask again
        return models

    @app.get("/v1/models")
    @Operation(
        "openai",
        "The models",
        "For OpenAI clients: the models that are served.",
        answers={JSON: Content(Models, answers.models([examples.MODEL], examples.QUEUED.accepted_at))},
        refusals=described,
    )
    def list_models() -> Response:
        return jsonify(answers.models(served(), created))

    @app.get("/v1/models/<path:model>")
    @Operation(
        "openai",
        "A model, by its name",
        "For OpenAI clients that ask whether a model is there.",
        answers={JSON: Content(Model, answers.model(examples.MODEL, examples.QUEUED.accepted_at))},
        parameters=(_MODEL,),
        refusals=(*refusals.of(ModelNotFound), *described),
    )
    def retrieve_model(model: str) -> Response:
        check_model(model, served())
        return jsonify(answers.model(model, created))

    @app.post("/v1/chat/completions")
    @Operation(
        "openai",
        "Answer a conversation",
        "For OpenAI clients. What the engine cannot do is refused, never ignored; the last message is the user's."
        + (" This engine takes one message of a user." if is_demo else ""),
        body=Content(ChatCompletions, _CHAT_BODY),
        answers={
            JSON: Content(ChatCompletion, answers.completion(_CHAT, example, seconds=0.651)),
            STREAM: Content([ChatChunk, ChatUsageChunk, BrokenOff], streamed(_CHAT)),
        },
        refusals=answered,
    )
    def create_chat_completion() -> Response:
        return complete(parse_body(ChatCompletions, json_body()))

    @app.post("/v1/completions")
    @Operation(
        "openai",
        "Continue a text" + (" (direct engine only)" if is_demo else ""),
        "For OpenAI clients. "
        + (
            "This server's engine is the demo, which cannot: it always answers an error."
            if is_demo
            else "The text is continued as it is, without the chat template."
        ),
        body=Content(TextCompletions, _TEXT_BODY),
        answers={}
        if is_demo
        else {
            JSON: Content(TextCompletion, answers.completion(_TEXT, example, seconds=0.651)),
            STREAM: Content([TextChunk, TextCompletion, BrokenOff], streamed(_TEXT)),
        },
        refusals=refused if is_demo else answered,
    )
    def create_completion() -> Response:
        return complete(parse_body(TextCompletions, json_body()))

    def complete(asked: Completions) -> Response:
        engine.check()
        started, question, is_gone = time.time(), asked.question(), client_is_gone(settings)
        if asked.stream:
            with named_as_asked(asked):
                pending = begin_with_slot(engine, slots, question)
            chunks = answers.Chunks(asked, pending.run_id, started, pending.run)
            body = event_stream.stream(chunks, pending.events, is_gone=is_gone, on_leave=pending.leave)
            return event_response(body, slots.leave)
        with slots.taken():
            with named_as_asked(asked):
                pending = engine.begin(question)
            note_run(pending.run_id, question.request.prompt)
            run = pending.wait(is_gone)
        return jsonify(answers.completion(asked, run, seconds=time.time() - started))
