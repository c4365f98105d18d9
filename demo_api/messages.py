"""What travels between the parts: the request, the batch, what a transcript says, events and results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict
from pydantic_core import from_json

from demo_api.errors import BadRequest

MAX_PROMPT_CHARACTERS = 32_768
MAX_TOKENS = 2048
MAX_PROMPTS = 32

_EXAMPLE = 'Send a JSON object such as {"prompt": "What is 2+2?"}.'


def not_blank(prompt: str) -> str:
    """Raises ValueError for a prompt that is blank."""
    if not prompt.strip():
        raise ValueError("the prompt is blank")
    return prompt


# What not_blank checks, for those who read the schema: to Python some control characters are blanks too.
NOT_BLANK: JsonDict = {"pattern": r"[^\s\x1c-\x1f\x85]"}
Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
        description="What the model is to answer; not blank.",
        json_schema_extra=NOT_BLANK,
    ),
    AfterValidator(not_blank),
]


def _whole(value: object) -> object:
    """JSON knows one kind of numbers: 32.0 is 32."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(_whole)]
# 2**32 - 1 means "a random one" to llama.cpp
Seed = Annotated[int, Field(ge=0, le=2**32 - 2), BeforeValidator(_whole)]


class _Sampling(BaseModel):
    # Strict: true is not a number, and an unknown field is an error.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    max_tokens: MaxTokens = Field(128, description="Most tokens of an answer.")
    temperature: float | None = Field(
        None,
        ge=0.0,
        le=2.0,
        allow_inf_nan=False,
        description="0 answers the same every time; null is 0.7 on the demo engine and 0.0 on the direct one.",
    )
    top_p: float = Field(
        0.9, gt=0.0, le=1.0, allow_inf_nan=False, description="Share of the probability to sample from."
    )
    seed: Seed | None = Field(None, description="Repeats a sampled answer; with the CPU edition's model only.")


class Request(_Sampling):
    """One prompt."""

    prompt: Prompt


class Requests(_Sampling):
    """Several prompts that have the rest in common."""

    prompts: list[Prompt] = Field(min_length=1, max_length=MAX_PROMPTS)


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


PHASES = ("startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "output")
"""The parts of a child's work, in order."""

DEVICE_STATES = ("free", "busy", "suspect", "resetting", "failed")
"""What a device can be, the best first. ``suspect``: a child may have left it open; ``failed``: no reset helped."""

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled", "timed_out")
"""What a run can be; the last four are for good."""


@dataclass(frozen=True)
class Run:
    """One accepted request, and what the ledger knows of it.

    Attributes:
        run_id: unique, and sorts by time.
        request: what the client asked for.
        demo: the demo settings that it was accepted for, as ``BatchRunner.demo`` gave them.
        status: one of ``STATUSES``.
        position: its place in the line, 1 for the next; None when it does not wait.
        accepted_at: Unix seconds; so are ``started_at`` (of the latest attempt) and ``finished_at``.
        waited_seconds: accepted to claimed; None when it was not yet, or a clock that jumped does not tell.
        time_seconds: accepted to finished; None likewise.
        attempts: how often it was given to a child.
        batch_id: names the folder of the child that has run it, or runs it; None before the first.
        result: its terminal value; None before the end, and for a run that was cancelled while it waited.
        last_event: the number of its latest event.
    """

    run_id: str
    request: Request
    demo: Mapping[str, str | None] = field(default_factory=dict)
    status: str = "queued"
    position: int | None = None
    accepted_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    waited_seconds: float | None = None
    time_seconds: float | None = None
    attempts: int = 0
    batch_id: str | None = None
    result: Result | None = None
    last_event: int = 0

    @property
    def ended(self) -> bool:
        """Whether its status is for good."""
        return self.status not in ("queued", "running")


@dataclass(frozen=True)
class Batch:
    """Runs that go to one child together: 1 to 32, with the same sampling, max_tokens and demo settings.

    Attributes:
        batch_id: unique, also among the attempts of one run: it names the folder, marks the processes, and fences.
        claimed_at: ``time.monotonic()`` seconds.
    """

    batch_id: str
    runs: Sequence[Run]
    claimed_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answer:
    """One user's answer as the demo logged it.

    Attributes:
        response: the text, stripped as the demo strips it.
        tokens_generated: how many tokens were generated, the end-of-sequence token not counted; None where the
            transcript does not settle it.
        prompt_tokens: of the prompt with its template; None where nobody told.
    """

    response: str
    tokens_generated: int | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Metrics:
    """The demo's own figures, exactly as it printed them; None is "not printed"."""

    prefill_compile_s: float | None = None
    decode_compile_s: float | None = None
    ttft_ms: float | None = None
    decode_ms_per_token: float | None = None
    tokens_per_second_per_user: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why a run has no success: a code, mostly from ``errors.RUN_CODES``, and one sentence on one line.

    ``next_step`` is there where the code alone does not say what to do.
    """

    code: str
    message: str
    next_step: str | None = None


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Attributes:
        kind: ``phase``, ``progress`` or ``text``.
        at: Unix seconds on the child's clock; None where the child did not say.
        data: ``{"phase": name}``, ``{"iteration": n, "tokens_per_second_per_user": x}`` or
            ``{"user": i, "tail": text}`` (the last characters of prompt and answer, newlines as spaces).
    """

    kind: str
    at: float | None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Where a run's time went. Seconds of wall time, except the demo's own two figures; null is "not known"."""

    warm: Annotated[
        str | None,
        Field(description="What the child had done before the run came: `off` or `imports`; null without a child."),
    ] = None
    queue_seconds: Annotated[
        float | None, Field(description="Accepted to child spawned, or told; the wait for the device included.")
    ] = None
    startup_seconds: Annotated[
        float | None,
        Field(
            description="Child spawned to tests collected: interpreter, imports, collection. Of a warm child, "
            "what was left of that when the run came."
        ),
    ] = None
    startup_ahead_seconds: Annotated[
        float | None, Field(description="What of the startup was over when the run came.")
    ] = None
    load_seconds: Annotated[
        float | None, Field(description="Collected to prefill warmup: device, weights, tokenizer.")
    ] = None
    prefill_compile_seconds: Annotated[float | None, Field(description="The demo's prefill warmup.")] = None
    prefill_seconds: Annotated[float | None, Field(description="The prefill that counts.")] = None
    decode_compile_seconds: Annotated[float | None, Field(description="The first decode iteration.")] = None
    decode_seconds: Annotated[float | None, Field(description="The other decode iterations.")] = None
    teardown_seconds: Annotated[
        float | None, Field(description="Last token to the end of the child: the report, the device closed.")
    ] = None
    ttft_ms: Annotated[float | None, Field(description="The demo's own average time to first token, milliseconds.")] = (
        None
    )
    decode_tokens_per_second: Annotated[
        float | None, Field(description="The demo's own tokens per second per user.")
    ] = None


@dataclass(frozen=True)
class Result:
    """A run's terminal value: an answer or a failure, never both.

    Attributes:
        log_folder: where the child's output is kept; None where no child was started.
        exit_code: the child's; negative is the signal that killed it; None where no child was started.
        note: a sentence about this result that a user should know, such as a figure that the demo could not give.
    """

    run_id: str
    answer: Answer | None = None
    failure: Failure | None = None
    timing: Timing = Timing()
    model: str | None = None
    device: str | None = None
    finish_reason: str | None = None
    exit_code: int | None = None
    log_folder: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    Attributes:
        results: one for each run, in order.
        suspect: a sentence, when the child's end leaves the device in doubt; None when it was closed in order.
        again: the child that was held for the batch did not begin it. There are no results: it is to be run again.
    """

    results: Sequence[Result]
    suspect: str | None = None
    again: bool = False
