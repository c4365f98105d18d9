"""The document itself, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from demo_api.errors import ErrorBody
from demo_api.web.openai.answers import OpenAIError
from demo_api.web.openapi.examples import Example, error_name, errors_told, of_answer, of_body
from demo_api.web.openapi.operations import JSON, STREAM, Operation, Parameter, operations
from demo_api.web.openapi.refusals import DOOR, KEY, RATE, UNEXPECTED, Refusal
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


def build(endpoints: Iterable[str], engine: str) -> JsonObject:
    """The document of a server.

    Args:
        endpoints: methods and paths, such as ``GET /runs/<run_id>``. What is not described is left out: pages.
        engine: ``demo`` or ``direct``.
    """
    described = {endpoint: each for endpoint, each in operations(engine).items() if endpoint in set(endpoints)}
    schemas = _schemas(described.values())
    paths: JsonObject = {}
    for endpoint, operation in described.items():
        method, _, path = endpoint.partition(" ")
        path = re.sub(r"<(\w+)>", r"{\1}", path)
        paths.setdefault(path, {})[method.lower()] = _operation(operation, schemas, engine)
    return {
        "openapi": "3.1.1",
        "info": {"title": "demo_api", "version": version("demo-api"), "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": f"This server. Its engine is {engine}."}],
        "tags": [
            {"name": name, "description": text}
            for name, text in _TAGS.items()
            if any(each.tag == name for each in described.values())
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "examples": {**errors_told(), **errors_told(openai=True)},
            "parameters": {"request_id": _SENT_REQUEST_ID},
            "headers": {"request_id": _REQUEST_ID, "retry_after": _RETRY_AFTER, "location": _LOCATION},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Only where the server was given keys."}
            },
        },
        "security": [{}, {"key": []}],
    }


def _schemas(described: Iterable[Operation]) -> Schemas:
    operations = list(described)
    answers = [kind for each in operations for answer in each.answers.values() for kind in _kinds(answer)]
    return Schemas([each.body for each in operations if each.body], [*answers, ErrorBody, OpenAIError])


def _kinds(answer: Any) -> Iterable[Any]:
    if isinstance(answer, Mapping):
        return answer.values()
    return answer if isinstance(answer, list) else [answer]


def _operation(operation: Operation, schemas: Schemas, engine: str) -> JsonObject:
    described: JsonObject = {
        "operationId": operation.operation_id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [
            *map(_parameter, operation.parameters),
            {"$ref": "#/components/parameters/request_id"},
        ],
    }
    if operation.body is not None:
        content = {"schema": schemas.of(operation.body), **_examples(of_body(operation.operation_id, engine))}
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    described["responses"] = dict(_responses(operation, schemas, engine))
    if operation.public:
        described["security"] = []
    return described


def _parameter(parameter: Parameter) -> JsonObject:
    described: JsonObject = {"name": parameter.name, "in": parameter.place, "description": parameter.description}
    if parameter.place == "path":
        described["required"] = True
    described["schema"] = dict(parameter.schema)
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _responses(operation: Operation, schemas: Schemas, engine: str) -> Iterator[tuple[str, JsonObject]]:
    if operation.answers:
        yield str(operation.status), _answered(operation, schemas, engine)
    anybody = (*UNEXPECTED, *DOOR, *RATE) if operation.public else (*UNEXPECTED, *DOOR, *KEY, *RATE)
    by_status: dict[int, dict[str | None, Refusal]] = {}
    for refusal in (*operation.refusals, *anybody):
        by_status.setdefault(refusal.status, {}).setdefault(refusal.code, refusal)
    for status, refusals in sorted(by_status.items()):
        yield str(status), _refused(operation, status, list(refusals.values()), schemas)


def _answered(operation: Operation, schemas: Schemas, engine: str) -> JsonObject:
    content = {
        media: {**_schema(media, kind, schemas), **_examples(of_answer(operation.operation_id, media, engine))}
        for media, kind in operation.answers.items()
    }
    if operation.status != 202:
        return {"description": "Done.", "headers": _HEADERS, "content": content}
    return {
        "description": "Accepted.",
        "headers": {**_HEADERS, "Location": {"$ref": "#/components/headers/location"}},
        "content": content,
        "links": {each: {"operationId": each, "parameters": _LINKED} for each in operation.links},
    }


def _refused(operation: Operation, status: int, refusals: list[Refusal], schemas: Schemas) -> JsonObject:
    later = {"Retry-After": {"$ref": "#/components/headers/retry_after"}} if status in (429, 503) else {}
    codes = [each.code for each in refusals if each.code]
    schema = schemas.of(OpenAIError if operation.openai else ErrorBody)
    if codes:
        narrowed = {"properties": {"code": {"enum": codes}}}
        schema |= {"properties": {"error": narrowed}} if operation.openai else narrowed
    told = errors_told(openai=operation.openai)
    names = {code: error_name(code, openai=operation.openai) for code in codes}
    shown = {code: {"$ref": f"#/components/examples/{name}"} for code, name in names.items() if name in told}
    lines = [f"- `{each.code}`: {each.meaning}" if each.code else each.meaning for each in refusals]
    return {
        "description": "\n".join(lines),
        "headers": {**_HEADERS, **later},
        "content": {JSON: {"schema": schema, **_examples(shown)}},
    }


def _schema(media: str, kind: Any, schemas: Schemas) -> JsonObject:
    if media != STREAM:
        return {"schema": schemas.of(kind)}
    # Before OpenAPI 3.2 there is no other place for what the events of a stream are than the schema.
    if isinstance(kind, Mapping):
        kinds = [_event(schemas.of(data), name) for name, data in kind.items()]
    else:
        kinds = [*(_event(schemas.of(data)) for data in kind), _event_of({"const": "[DONE]"})]
    return {"schema": {"description": "One event of the stream.", "anyOf": kinds}}


def _event(data: JsonObject, name: str | None = None) -> JsonObject:
    return _event_of({"type": "string", "contentMediaType": JSON, "contentSchema": data}, name)


def _event_of(data: JsonObject, name: str | None = None) -> JsonObject:
    numbered = {"id": {"type": "string"}, "event": {"const": name}} if name else {}
    properties = {**numbered, "data": data}
    return {"type": "object", "required": list(properties), "properties": properties}


def _examples(examples: Mapping[str, Example]) -> JsonObject:
    return {"examples": {name: dict(each) for name, each in examples.items()}} if examples else {}
