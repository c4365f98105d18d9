"""Reads requests from JSON, and says in one sentence what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError, from_json

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
        raise _bad_request(error, Request, fields) from None


def parse_body(model: type[_Model], body: bytes | str) -> _Model:
    """Reads JSON text as a model. Raises BadRequest as ``parse_request`` does."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error, model, _fields(body)) from None


def refused(reason: str, next_step: str) -> PydanticCustomError:
    """What a validator raises for a field of the right type that cannot be used.

    Args:
        reason: goes on after the field's name, such as "cannot be used: ...".
    """
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "next_step": next_step})


def _has_prompts(body: bytes | str) -> bool:
    fields = _fields(body)
    return isinstance(fields, dict) and "prompts" in fields


def _fields(body: bytes | str) -> object:
    """The JSON; None if it is none."""
    try:
        return from_json(body)
    except ValueError:
        return None


def _bad_request(error: ValidationError, model: type[BaseModel], fields: object) -> BadRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, place, reason = first["type"], first["loc"], first["msg"]
    if kind == "json_invalid":
        return BadRequest(f"The body is not JSON: {reason.removeprefix('Invalid JSON: ')}.", next_step=_EXAMPLE)
    if not place:
        return BadRequest("The body is not a JSON object.", next_step=_EXAMPLE)
    name = _name(place, fields, is_missing=kind == "missing")
    if kind == "missing":
        return BadRequest(f"The field '{name}' is missing.", next_step=f"Add '{name}' to the body.", field=name)
    if kind == "extra_forbidden":
        known = f"; the fields are {', '.join(sorted(model.model_fields))}" if len(place) == 1 else ""
        return BadRequest(f"The field '{name}' is not known.", next_step=f"Leave it out{known}.", field=name)
    if kind == "refused":
        return BadRequest(f"The field '{name}' {reason}.", next_step=first["ctx"]["next_step"], field=name)
    reason = reason.removeprefix("Input ").removeprefix("Value error, ")
    return BadRequest(f"The field '{name}' is wrong: {reason}.", field=name)


def _name(place: Sequence[int | str], fields: object, *, is_missing: bool) -> str:
    """Where in the body it is, such as ``messages[0].content``.

    pydantic names the alternatives of a union among the fields: what is no field of the body is left out.
    """
    name, here = "", fields
    for number, part in enumerate(place):
        if isinstance(part, int):
            name += f"[{part}]"
            here = here[part] if isinstance(here, list) else None
        elif isinstance(here, Mapping) and (part in here or (is_missing and number == len(place) - 1)):
            name += f".{part[:100]}" if name else part[:100]
            here = here.get(part)
    return name
