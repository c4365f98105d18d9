"""The values that travel between the rooms: requests, runs, batches, events and results; in health.py, how all are."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

MAX_PROMPT_CHARACTERS = 32_768
MAX_TOKENS = 2048
MAX_PROMPTS = 32

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled", "timed_out")
"""What a run can be; the last four are final."""

PHASES = ("startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "output")
"""The parts of a child's work, in order."""


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
        description="The prompt; not blank.",
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

    max_tokens: MaxTokens = Field(128, description="Most tokens in the answer.")
    temperature: float | None = Field(
        None,
        ge=0.0,
        le=2.0,
        allow_inf_nan=False,
        description="0 gives the same answer every time; null is 0.7 on the demo engine and 0.0 on the direct one.",
    )
    top_p: float = Field(
        0.9, gt=0.0, le=1.0, allow_inf_nan=False, description="Share of the probability to sample from."
    )
    seed: Seed | None = Field(None, description="Makes a sampled answer repeatable, if the demo takes a seed.")
    model: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Which model is to answer, by its name in `/v1/models`; null is the server's own."
    )


class Request(_Sampling):
    """One prompt."""

    prompt: Prompt


class Requests(_Sampling):
    """Several prompts that have the rest in common."""

    prompts: list[Prompt] = Field(min_length=1, max_length=MAX_PROMPTS)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: its text.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """What a model is to answer.

    Attributes:
        request: the sampling and the most tokens; ``request.prompt`` is the last turn, or the raw text.
        turns: the whole conversation, the last turn is the user's; empty for text that is to be continued as it is,
            without the chat template.
        stop: ends the answer before the first of these texts, none of which is empty.
    """

    request: Request
    turns: Sequence[Turn]
    stop: Sequence[str] = ()

    @classmethod
    def of(cls, request: Request) -> Question:
        """One prompt, as ``/chat`` has it."""
        return cls(request, [Turn("user", request.prompt)])


@dataclass(frozen=True)
class Run:
    """One accepted request, and what is known of it.

    Attributes:
        run_id: unique, and sorts by time.
        request: what the client asked for.
        status: one of ``STATUSES``.
        position: its position in the queue, 1 for the next; None if it is not waiting.
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
        """Whether its status is final."""
        return self.status not in ("queued", "running")


@dataclass(frozen=True)
class Batch:
    """Runs that go to one child together: 1 to 32, with the same sampling and max_tokens.

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
        prompt_tokens: of the prompt with its template; None where it is not counted.
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
        kind: ``queued``, ``position``, ``started``, ``phase``, ``progress``, ``text``, and at the end ``done``.
        at: Unix seconds, of a child's events on its clock; None where the child did not say.
        data: ``{"phase": name}``, ``{"iteration": n, "tokens_per_second_per_user": x}`` and so on. Of ``text`` a child
            gives ``{"user": i, "added": text}``, or where that is not known ``{"user": i, "tail": text}`` (the last
            characters of prompt and answer, newlines as spaces), and a run ``{"added": text}``. Of ``done`` it is
            empty: the run itself says how it ended.
    """

    kind: str
    at: float | None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Where a run's time went. Seconds of wall time, except the demo's own two figures; null is "not known"."""

    warm: Annotated[
        str | None,
        Field(
            description="What the child had done ahead of the run: `off` (nothing), `imports`, or `model` (it has "
            "answered others with the same model); null without a child."
        ),
    ] = None
    queue_seconds: Annotated[
        float | None,
        Field(description="From acceptance until the child got the run, including the wait for the device."),
    ] = None
    startup_seconds: Annotated[
        float | None,
        Field(
            description="From the child's start until the tests are collected: interpreter, imports. For a warm child, "
            "what was left of that when the run came."
        ),
    ] = None
    startup_ahead_seconds: Annotated[float | None, Field(description="Start-up done before the run arrived.")] = None
    load_seconds: Annotated[
        float | None, Field(description="From collection to prefill warmup: device, weights, tokenizer.")
    ] = None
    prefill_compile_seconds: Annotated[float | None, Field(description="The demo's prefill warmup.")] = None
    prefill_seconds: Annotated[float | None, Field(description="The prefill itself.")] = None
    decode_compile_seconds: Annotated[float | None, Field(description="The first decode iteration.")] = None
    decode_seconds: Annotated[float | None, Field(description="The other decode iterations.")] = None
    teardown_seconds: Annotated[
        float | None, Field(description="From the last token to the child's end: the report, closing the device.")
    ] = None
    ttft_ms: Annotated[float | None, Field(description="The demo's average time to first token, in milliseconds.")] = (
        None
    )
    decode_tokens_per_second: Annotated[float | None, Field(description="The demo's tokens per second per user.")] = (
        None
    )


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
        again: the warm child did not begin the batch. There are no results: it is to be run again.
        stays: whether the child keeps the device and the model, and can take another batch.
    """

    results: Sequence[Result]
    suspect: str | None = None
    again: bool = False
    stays: bool = False


def in_utf8(text: bytes) -> bytes:
    """JSON text in UTF-8 without a byte order mark, of text in any Unicode encoding: Windows' tools write several.

    Raises:
        ValueError: it is in none; where that shows.
    """
    encoding = json.detect_encoding(text)  # as json.loads does
    try:
        decoded = text.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in UTF-8 (byte {error.start + 1})") from None
    return text if encoding == "utf-8" else decoded.encode()
