"""Reads requests from JSON, and says in one sentence what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from demo_api.errors import BadRequest
from demo_api.messages import Request, Requests

_EXAMPLE = 'Send a JSON object such as {"prompt": "What is 2+2?"}.'

_Model = TypeVar("_Model", bound=BaseModel)


def parse_request(body: bytes | str) -> Request:
    """Reads a request from JSON text.

    Raises:
        BadRequest: not JSON, not an object, an unknown field, a wrong type, or a value out of range;
            ``fields["field"]`` names the field where there is one.
    """
    return parse_body(Request, body)


def parse_requests(body: bytes | str) -> list[Request]:
    """As ``parse_request``, for a body that has either ``prompt``, or ``prompts``: a list of 1 to 32."""
    if not _has_prompts(body):
        return [parse_body(Request, body)]
    asked = parse_body(Requests, body)
    sampling = asked.model_dump(exclude={"prompts"}, exclude_unset=True)
    return [Request(prompt=prompt, **sampling) for prompt in asked.prompts]


def check_request(fields: Mapping[str, object]) -> Request:
    """As ``parse_request``, from values that are Python's already."""
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        raise _bad_request(error, Request) from None


def parse_body(model: type[_Model], body: bytes | str) -> _Model:
    """Reads JSON text as a model. Raises BadRequest as ``parse_request`` does."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error, model) from None


def _has_prompts(body: bytes | str) -> bool:
    try:
        fields = from_json(body)
    except ValueError:
        return False
    return isinstance(fields, dict) and "prompts" in fields


def _bad_request(error: ValidationError, model: type[BaseModel]) -> BadRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, place = first["type"], first["loc"]
    name = str(place[0])[:100] + "".join(f"[{number}]" for number in place[1:]) if place else None
    if kind == "json_invalid":
        return BadRequest(f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", next_step=_EXAMPLE)
    if name is None:
        return BadRequest("The body is not a JSON object.", next_step=_EXAMPLE)
    if kind == "missing":
        return BadRequest(f"The field '{name}' is missing.", next_step=f"Add '{name}' to the body.", field=name)
    if kind == "extra_forbidden":
        return BadRequest(
            f"The field '{name}' is not known.",
            next_step=f"Leave it out; the fields are {', '.join(sorted(model.model_fields))}.",
            field=name,
        )
    reason = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return BadRequest(f"The field '{name}' is wrong: {reason}.", field=name)
