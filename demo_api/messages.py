"""What travels between the parts: the request, the batch, what a transcript says, events and results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from demo_api.errors import BadRequest, RunFailed

MAX_PROMPT_CHARACTERS = 32_768
MAX_TOKENS = 2048

_EXAMPLE = 'Send a JSON object such as {"prompt": "What is 2+2?"}.'


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("the prompt is blank")
    return prompt


class Request(BaseModel):
    """The client's JSON, checked. Strict: ``true`` is not a number, and an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_not_blank)]
    max_tokens: int = Field(128, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(0.9, gt=0.0, le=1.0, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, le=2**32 - 2)  # 2**32 - 1 means "a random one" to llama.cpp


def parse_request(body: bytes | str) -> Request:
    """Reads a request from JSON text.

    Raises:
        BadRequest: not JSON, not an object, an unknown field, a wrong type, or a value out of range;
            ``fields["field"]`` names the field where there is one.
    """
    try:
        return Request.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error) from None


def check_request(fields: Mapping[str, object]) -> Request:
    """As ``parse_request``, from values that are Python's already."""
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, name = first["type"], str(first["loc"][0])[:100] if first["loc"] else None
    if kind == "json_invalid":
        return BadRequest(f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", next_step=_EXAMPLE)
    if name is None:
        return BadRequest("The body is not a JSON object.", next_step=_EXAMPLE)
    if kind == "missing":
        return BadRequest(f"The field '{name}' is missing.", next_step=f"Add '{name}' to the body.", field=name)
    if kind == "extra_forbidden":
        return BadRequest(
            f"The field '{name}' is not known.",
            next_step=f"Leave it out; the fields are {', '.join(Request.model_fields)}.",
            field=name,
        )
    reason = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return BadRequest(f"The field '{name}' is wrong: {reason}.", field=name)


@dataclass(frozen=True)
class Run:
    """One accepted request.

    Attributes:
        run_id: unique; names the run's folder, and sorts by time.
        accepted_at: ``time.monotonic()`` seconds at which the request was accepted.
    """

    run_id: str
    request: Request
    accepted_at: float


@dataclass(frozen=True)
class Answer:
    """One user's answer as the demo logged it.

    Attributes:
        response: the text, stripped as the demo strips it.
        tokens_generated: how many tokens were generated, the end-of-sequence token not counted; None where the
            transcript does not settle it.
    """

    response: str
    tokens_generated: int | None = None


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
    """Why a run has no success: a code from ``errors.RUN_CODES`` and one sentence on one line."""

    code: str
    message: str


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
    data: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Where a run's time went. Seconds of wall time, except the demo's own two figures; None is "not known".

    Attributes:
        queue_seconds: accepted to child spawned, the wait for the device included.
        startup_seconds: child spawned to tests collected: interpreter, imports, collection.
        load_seconds: collected to prefill warmup: device, weights, tokenizer.
        prefill_compile_seconds: the demo's prefill warmup.
        prefill_seconds: the prefill that counts.
        decode_compile_seconds: the first decode iteration.
        decode_seconds: the other decode iterations.
        teardown_seconds: last token to the end of the child: the report, the device closed.
        ttft_ms: the demo's own average time to first token, milliseconds.
        decode_tokens_per_second: the demo's own tokens per second per user.
    """

    queue_seconds: float | None = None
    startup_seconds: float | None = None
    load_seconds: float | None = None
    prefill_compile_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_compile_seconds: float | None = None
    decode_seconds: float | None = None
    teardown_seconds: float | None = None
    ttft_ms: float | None = None
    decode_tokens_per_second: float | None = None


@dataclass(frozen=True)
class Result:
    """A run's terminal value: an answer or a failure, never both.

    Attributes:
        output: everything that the child printed, readable.
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
    output: str = ""
    exit_code: int | None = None
    log_folder: str | None = None
    note: str | None = None


def answer_body(run: Run, result: Result, engine: str) -> dict[str, object]:
    """What a client gets of a run that succeeded.

    ``time_seconds`` is what the client waited for, the wait in the line included, and ``tokens_per_second`` is
    tokens_generated / time_seconds. Both end now.

    Raises:
        RunFailed: the run did not succeed.
    """
    seconds = round(time.monotonic() - run.accepted_at, 3)
    if result.failure is not None or result.answer is None:
        failure = result.failure or Failure("no_answer", "The run ended without an answer.")
        raise RunFailed(
            failure.message,
            code=failure.code,
            log_folder=result.log_folder,
            run_id=run.run_id,
            exit_code=result.exit_code,
            time_seconds=seconds,
        )
    tokens = result.answer.tokens_generated
    return {
        "success": True,
        "prompt": run.request.prompt,
        "response": result.answer.response,
        "output": result.output,
        "tokens_generated": tokens,
        "time_seconds": seconds,
        "tokens_per_second": round(tokens / seconds, 3) if tokens is not None and seconds else None,
        "run_id": run.run_id,
        "engine": engine,
        "model": result.model,
        "device": result.device,
        "finish_reason": result.finish_reason,
        "note": result.note,
        "timing": dataclasses.asdict(result.timing),
    }


Listener = Callable[[str, Event], None]
"""Called with a run's id and each of its events, on the thread that runs the batch."""


class Engine(Protocol):
    """Turns a batch into answers, one batch at a time."""

    name: str

    def check(self) -> None:
        """Raises SetupError, with the next step, when a run could not succeed on this machine as it is now."""

    def accept(self, request: Request) -> None:
        """Raises BadRequest for what this engine can know that it cannot do."""

    def device_is_taken(self) -> bool:
        """Whether some process holds the device now."""

    def describe(self) -> dict[str, object]:
        """What ``/health`` says of the engine: ``model``, ``model_loaded``, ``llama_dir`` and so on."""

    def generate(self, runs: list[Run], listener: Listener) -> list[Result]:
        """Runs one batch to its end: one result for each run, in order."""

    def stop(self, reason: str) -> None:
        """Ends the batch that runs, if any, and refuses further ones; returns at once."""

    def hurry(self) -> None:
        """Cuts short the grace that a stopped batch was given."""
