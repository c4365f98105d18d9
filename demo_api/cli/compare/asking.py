"""Asks the servers the same prompts, one request after another, so that they do not compete for the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import requests
from pydantic import BaseModel, Field, ValidationError

from demo_api.cli.compare.comparison import PARTS, Replies, Reply
from demo_api.client import Client, json_of, reason
from demo_api.errors import DemoApiError

_HEALTH_SECONDS = 30
_LONGEST_WORDS = 500

Progress = Callable[[str, int, int], None]
"""Called before each request with the side, the number of the request from 1, and how many there are."""


class NoServer(DemoApiError):
    """Nothing answers at the address of a server, so nothing can be compared."""

    next_step = "Start it, or give the address of one that runs."


class _Answer(BaseModel):
    """The fields used of a successful ``POST /chat``."""

    response: str
    tokens_generated: int | None = Field(None, ge=0)
    time_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    tokens_per_second: float | None = Field(None, ge=0, allow_inf_nan=False)
    engine: str | None = None
    model: str | None = None
    device: str | None = None
    timing: dict[str, object] = Field(default_factory=dict)


def ask_all(
    prompts: Sequence[str],
    parameters: Mapping[str, object],
    *,
    sides: Sequence[str],
    repeat: int,
    client: Callable[[str], Client],
    one_at_a_time: bool,
    progress: Progress,
) -> tuple[dict[str, dict[str, object]], dict[str, list[Replies]]]:
    """Asks each server every prompt. The kept model is asked the first one once more, before all: that loads it.

    Args:
        parameters: fields of the request beside the prompt.
        sides: the servers, by ``SIDES``.
        repeat: how often each prompt is sent to each server.
        client: gives the server of a side; called before each request.
        one_at_a_time: all requests to one server before the first one to the next.

    Returns:
        for each side what ``GET /health`` said, and what was said to each prompt.

    Raises:
        NoServer: one of them is not there at all.
    """
    turns = list(_turns(sides, len(prompts), repeat, one_at_a_time))
    healths: dict[str, dict[str, object]] = {}
    replies: dict[str, list[list[Reply]]] = {side: [[] for _ in prompts] for side in sides}
    if not one_at_a_time:  # before a run of minutes on the one, it should be known that the others are there
        healths = {side: _health(client(side)) for side in sides}
    for number, (side, prompt) in enumerate(turns, 1):
        server = client(side)
        if side not in healths:
            healths[side] = _health(server)
        progress(side, number, len(turns))
        if side == "kept" and not any(replies[side]):
            _ask(server, {"prompt": prompts[0], **parameters})
        replies[side][prompt].append(_ask(server, {"prompt": prompts[prompt], **parameters}))
    return healths, {side: [Replies(each) for each in replies[side]] for side in sides}


def _turns(sides: Sequence[str], prompts: int, repeat: int, one_at_a_time: bool) -> Iterator[tuple[str, int]]:
    """Which side gets which prompt, in order. They take turns in going first: who comes later finds warm caches."""
    rounds = [(number, prompt) for number in range(repeat) for prompt in range(prompts)]
    if one_at_a_time:
        return ((side, prompt) for side in sides for _, prompt in rounds)
    return (
        (sides[(number + prompt + place) % len(sides)], prompt)
        for number, prompt in rounds
        for place in range(len(sides))
    )


def _health(client: Client) -> dict[str, object]:
    """The body of ``GET /health``; empty where it is none."""
    try:
        body = json_of(client.send("GET", "/health", timeout=_HEALTH_SECONDS))
    except requests.RequestException as error:
        raise NoServer(f"There is no server at {client.url}: {reason(error)}.") from None
    return body if isinstance(body, dict) else {}


def not_ready(client: Client) -> str | None:
    """Why a server is not ready, in its own words; None if it is."""
    try:
        answer = client.send("GET", "/readyz", timeout=_HEALTH_SECONDS)
    except requests.RequestException as error:
        return reason(error)
    return None if answer.status_code == 200 else _words(answer)


def _ask(client: Client, fields: Mapping[str, object]) -> Reply:
    """Sends one prompt to ``POST /chat`` and waits for its answer, or for the error."""
    try:
        answer = client.send("POST", "/chat", fields)
    except requests.Timeout:
        return Reply(error=f"It did not answer within {client.timeout:g} s.")
    except requests.RequestException as error:
        return Reply(error=f"It cannot be reached: {reason(error)}.")
    return _reply(answer) if answer.status_code == 200 else Reply(error=_words(answer))


def _reply(answer: requests.Response) -> Reply:
    try:
        body = _Answer.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(each) for each in first["loc"]) or "the body"
        return Reply(error=f"It answered 200, but not as /chat does: {where}: {first['msg']}.")
    return Reply(
        response=body.response,
        seconds=body.time_seconds,
        tokens=body.tokens_generated,
        tokens_per_second=body.tokens_per_second,
        ttft_ms=_number(body.timing.get("ttft_ms")),
        parts={name: value for name in PARTS if (value := _number(body.timing.get(f"{name}_seconds"))) is not None},
        engine=body.engine,
        model=body.model,
        device=body.device,
    )


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _words(answer: requests.Response) -> str:
    """The reason in an error response: our sentences, or the beginning of whatever it holds."""
    body = json_of(answer)
    if isinstance(body, dict) and body.get("error"):
        said = f"{body['error']} {body.get('next_step') or ''}"
    else:
        said = " ".join(answer.text.split())[:_LONGEST_WORDS] or str(answer.reason)
    return f"{answer.status_code}: {said.strip()}"
