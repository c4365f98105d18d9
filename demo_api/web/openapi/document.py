"""Builds the OpenAPI document of a server from the descriptions that its routes bear."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from demo_api.errors import RUN_CODES, ErrorBody
from demo_api.web.access import PUBLIC
from demo_api.web.openai.answers import OpenAIError, openai_error
from demo_api.web.openapi import examples
from demo_api.web.openapi.operation import JSON, STREAM, Content, Operation
from demo_api.web.openapi.refusals import ANY, KEY, Refusal
from demo_api.web.openapi.schemas import JsonObject, Schemas

_DESCRIPTION = """\
An HTTP door to Tenstorrent's `simple_text_demo.py`. The demo engine runs the demo as a child process for each request,
or for several that wait together; the direct engine keeps the model in memory.

Every error says what is wrong, has a `code` for programs, and tells the next step. What is not known is null.
Where a server was given keys, send one of them: `Authorization: Bearer KEY`."""

_TAGS = {
    "chat": "One prompt, and its answer.",
    "runs": "Runs outlive their client and the server.",
    "openai": "For any OpenAI client, with `/v1` as the end of its base URL.",
    "server": "How the server is.",
}

_REQUEST_ID: JsonObject = {
    "description": "Names the request, in the server's log too: yours, if you sent one (1 to 64 letters, digits, `.`, "
    "`_`, `-`).",
    "required": True,
    "schema": {"type": "string"},
}
_RETRY_AFTER: JsonObject = {
    "description": "Seconds to wait, where they are known.",
    "schema": {"type": "integer", "minimum": 0},
}
_SHOULD_RETRY: JsonObject = {
    "description": "OpenAI's clients heed it: `false` where a run was executed and failed.",
    "schema": {"const": "false"},
}
_LOCATION: JsonObject = {
    "description": "The path of the first run.",
    "required": True,
    "schema": {"type": "string"},
}
_HEADERS: JsonObject = {"X-Request-Id": {"$ref": "#/components/headers/request_id"}}
_LINKED = {"run_id": "$response.body#/run_id"}
_SENT_REQUEST_ID: JsonObject = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "A name for the request, which the answer gives back if it is one.",
    "schema": {"type": "string"},
}


def build(app: Flask, engine: str) -> JsonObject:
    """Builds the document of a server, without the routes that bear no ``Operation``: its pages.

    Args:
        app: with all its routes.
        engine: ``demo`` or ``direct``.
    """
    routes = list(_routes(app))
    operations = [operation for _, operation in routes]
    schemas = _schemas(operations)
    paths: JsonObject = {}
    for rule, operation in routes:
        path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        paths.setdefault(path, {})[method.lower()] = _operation(rule, operation, schemas, engine)
    return {
        "openapi": "3.1.1",
        "info": {"title": "demo_api", "version": version("demo-api"), "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": f"This server. Its engine is {engine}."}],
        "tags": [
            {"name": name, "description": text}
            for name, text in _TAGS.items()
            if any(each.tag == name for each in operations)
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "examples": _error_examples(),
            "parameters": {"request_id": _SENT_REQUEST_ID},
            "headers": {
                "request_id": _REQUEST_ID,
                "retry_after": _RETRY_AFTER,
                "location": _LOCATION,
                "should_retry": _SHOULD_RETRY,
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Only where the server was given keys."}
            },
        },
        "security": [{}, {"key": []}],
    }


def _routes(app: Flask) -> Iterator[tuple[Rule, Operation]]:
    for rule in app.url_map.iter_rules():
        operation = getattr(app.view_functions[rule.endpoint], "operation", None)
        if operation is not None:
            yield rule, operation


def _schemas(operations: Iterable[Operation]) -> Schemas:
    bodies = [each.body.kind for each in operations if each.body]
    answers = [kind for each in operations for answer in each.answers.values() for kind in _kinds(answer.kind)]
    return Schemas(bodies, [*answers, ErrorBody, OpenAIError])


def _kinds(kind: Any) -> Iterable[Any]:
    if isinstance(kind, Mapping):
        return kind.values()
    return kind if isinstance(kind, list) else [kind]


def _operation(rule: Rule, operation: Operation, schemas: Schemas, engine: str) -> JsonObject:
    public = rule.rule in PUBLIC
    described: JsonObject = {
        "operationId": rule.endpoint,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*operation.parameters, {"$ref": "#/components/parameters/request_id"}],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: _content(JSON, operation.body, schemas, engine)},
        }
    described["responses"] = {}
    if operation.answers:
        described["responses"][str(operation.status)] = _answer(operation, schemas, engine)
    by_status: dict[int, dict[str, Refusal]] = {}
    for refusal in (*operation.refusals, *ANY, *(() if public else KEY)):
        by_status.setdefault(refusal.status, {}).setdefault(refusal.code, refusal)
    for status, refusals in sorted(by_status.items()):
        described["responses"][str(status)] = _refused(status, refusals, schemas, openai=operation.tag == "openai")
    if public:
        described["security"] = []
    return described


def _answer(operation: Operation, schemas: Schemas, engine: str) -> JsonObject:
    content = {media: _content(media, each, schemas, engine) for media, each in operation.answers.items()}
    if operation.status != 202:
        return {"description": "Done.", "headers": _HEADERS, "content": content}
    return {
        "description": "Accepted.",
        "headers": {**_HEADERS, "Location": {"$ref": "#/components/headers/location"}},
        "content": content,
        "links": {each: {"operationId": each, "parameters": _LINKED} for each in operation.links},
    }


def _refused(status: int, refusals: Mapping[str, Refusal], schemas: Schemas, *, openai: bool) -> JsonObject:
    later = {"Retry-After": {"$ref": "#/components/headers/retry_after"}} if status in (429, 503) else {}
    if openai and refusals.keys() & RUN_CODES.keys():
        later["X-Should-Retry"] = {"$ref": "#/components/headers/should_retry"}
    narrowed: JsonObject = {"properties": {"code": {"enum": list(refusals)}}}
    if openai:
        narrowed = {"properties": {"error": narrowed}}
    content: JsonObject = {"schema": {**schemas.of(OpenAIError if openai else ErrorBody), **narrowed}}
    shown = {code: f"openai_{code}" if openai else code for code in refusals if code in examples.ERRORS}
    if shown:
        content["examples"] = {code: {"$ref": f"#/components/examples/{name}"} for code, name in shown.items()}
    return {
        "description": "\n".join(f"- `{each.code}`: {each.meaning}" for each in refusals.values()),
        "headers": {**_HEADERS, **later},
        "content": {JSON: content},
    }


def _error_examples() -> JsonObject:
    shown: JsonObject = {}
    for code, error in examples.ERRORS.items():
        body: ErrorBody = {**error.body(), "request_id": "19bc6972e494868f"}
        shown[code] = {"value": body}
        shown[f"openai_{code}"] = {"value": openai_error(body, error.status_code)}
    return shown


def _content(media: str, content: Content, schemas: Schemas, engine: str) -> JsonObject:
    schema = _stream(content.kind, schemas) if media == STREAM else schemas.of(content.kind)
    if content.example is None:
        return {"schema": schema}
    return {"schema": schema, "examples": {engine: {"value": content.example}}}


def _stream(kind: Any, schemas: Schemas) -> JsonObject:
    # Before OpenAPI 3.2 there is no other place for what the events of a stream are than the schema.
    if isinstance(kind, Mapping):
        kinds = [_event(schemas.of(data), name) for name, data in kind.items()]
    else:
        kinds = [*(_event(schemas.of(data)) for data in kind), _event_of({"const": "[DONE]"})]
    return {"description": "One event of the stream.", "anyOf": kinds}


def _event(data: JsonObject, name: str | None = None) -> JsonObject:
    return _event_of({"type": "string", "contentMediaType": JSON, "contentSchema": data}, name)


def _event_of(data: JsonObject, name: str | None = None) -> JsonObject:
    numbered = {"id": {"type": "string"}, "event": {"const": name}} if name else {}
    properties = {**numbered, "data": data}
    return {"type": "object", "required": list(properties), "properties": properties}
