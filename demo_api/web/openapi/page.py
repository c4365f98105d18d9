"""Renders the OpenAPI document as a page for people."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import render_template
from markupsafe import Markup, escape

from demo_api.web.openapi.operation import JSON, STREAM
from demo_api.web.openapi.schemas import JsonObject


def render(document: JsonObject, url: str) -> str:
    """The page, within a request to the Flask app that has the template.

    Args:
        url: of the server, for the commands.
    """
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return render_template(
        "docs.html",
        document=document,
        sections=[(tag, [each for each in operations if tag["name"] in each[2]["tags"]]) for tag in document["tags"]],
        command=partial(command, url),
        resolve=partial(_resolve, document),
        codes=codes,
        kind=kind,
        pretty=pretty,
        prose=prose,
        rows=rows,
        JSON=JSON,
        STREAM=STREAM,
    )


def command(url: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    """A curl command for an operation, from its examples; ``RUN_ID`` stands for a run's id."""
    given = {place: _examples(operation, place) for place in ("query", "path")}
    query = list(given["query"].items())
    target = url + re.sub(r"\{(\w+)\}", lambda name: given["path"].get(name[1], name[1].upper()), path)
    if query:
        target += f"?{urlencode(query, doseq=True)}"
    words = ["curl", *(["-N"] if _streams(operation) else []), *(["-X", method] if method != "GET" else []), target]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"][JSON]
        example = next(iter(content["examples"].values()))["value"]
        words += ["-H", f"Content-Type: {JSON}", "-d", json.dumps(example)]
    return shlex.join(words)


def _examples(operation: Mapping[str, Any], place: str) -> dict[str, Any]:
    shown = [each for each in operation["parameters"] if each.get("in") == place and "example" in each]
    return {each["name"]: each["example"] for each in shown}


def _streams(operation: Mapping[str, Any]) -> bool:
    answers = operation["responses"].get("200", {}).get("content", {})
    return list(answers) == [STREAM]


def _resolve(document: JsonObject, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference stands for; anything else as it is."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def prose(text: str) -> Markup:
    """A description: `code` and lines that begin with a dash are marked up, everything else is text."""
    lines = [re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(line))) for line in text.split("\n")]
    parts = [f"<li>{line[2:]}</li>" if line.startswith("- ") else line for line in lines]
    return Markup(re.sub(r"((?:<li>.*?</li>\n?)+)", r"<ul>\1</ul>", "\n".join(parts)))  # noqa: S704 (escaped above) # nosec B704


def rows(schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """The fields of a shape, and whether they are always there; those first."""
    required = schema.get("required", [])
    fields = [(name, described, name in required) for name, described in schema["properties"].items()]
    return sorted(fields, key=lambda field: not field[2])


def pretty(value: object) -> str:
    """An example: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def codes(response: Mapping[str, Any]) -> list[str]:
    """The codes of the errors that are answered with this status."""
    properties = response["content"][JSON]["schema"].get("properties", {})
    if "error" in properties:  # OpenAI's shape
        properties = properties["error"]["properties"]
    return list(properties.get("code", {}).get("enum", []))


def kind(schema: Mapping[str, Any]) -> Markup:
    """What values a schema allows, in a few words; other shapes are linked."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#shape-{0}">{0}</a>').format(name)
    if alternatives := schema.get("anyOf", schema.get("oneOf")):
        return Markup(" or ").join(kind(each) for each in alternatives)
    if "const" in schema:
        return Markup("<code>{}</code>").format(json.dumps(schema["const"]))
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(json.dumps(each)) for each in schema["enum"])
    types = schema.get("type", "anything")
    words = list(types) if isinstance(types, list) else [types]
    if 0 in (schema.get("maxItems"), schema.get("maxProperties")):
        words[0] = f"empty {words[0]}"
    elif words[0] == "array":
        return Markup(" or ").join([Markup("list of ") + kind(schema["items"]), *words[1:]])
    return escape(f"{' or '.join(words)}{_bounds(schema)}")


def _bounds(schema: Mapping[str, Any]) -> str:
    least = schema.get("minimum", schema.get("minLength"))
    most = schema.get("maximum", schema.get("maxLength"))
    if "exclusiveMinimum" in schema:
        return f", over {_number(schema['exclusiveMinimum'])} to {_number(most)}"
    if least is None and most is None:
        return ""
    unit = " characters" if "maxLength" in schema else ""
    return f", {_number(least)} to {_number(most)}{unit}" if most is not None else f", at least {_number(least)}{unit}"


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")
