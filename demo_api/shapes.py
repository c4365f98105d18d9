"""The JSON that clients get, as types: mypy holds the code to them, and the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, GetPydanticSchema
from typing_extensions import NotRequired, TypedDict

from demo_api.messages import DEVICE_STATES, PHASES, STATUSES, Timing

RunId = Annotated[str, Field(description="Names the run, and sorts by time.")]
EngineName = Annotated[str, Field(description="Who answered.", json_schema_extra={"enum": ["demo", "direct"]})]
Model = Annotated[str | None, Field(description="The model, as the demo calls it; null where it did not say.")]
DeviceName = Annotated[str | None, Field(description="The device, as the demo calls it; null where it did not say.")]
Response = Annotated[str, Field(description="The model's answer.")]
TokensGenerated = Annotated[
    int | None, Field(description="Tokens of the response, the end-of-sequence token not counted.")
]
PromptTokens = Annotated[
    int | None, Field(description="Tokens of the prompt with its template; only the direct engine knows.")
]
FinishReason = Annotated[
    str | None, Field(description="`stop`: the model ended its answer; `length`: it reached `max_tokens`.")
]
Note = Annotated[str | None, Field(description="A sentence, where a figure could not be had.")]
When = Annotated[str | None, Field(description="UTC, such as 2026-11-22T18:41:26.123Z; null when not yet.")]
Seconds = Annotated[float | None, Field(description="Accepted to finished; null before that.")]
ExitCode = Annotated[
    int | None, Field(description="The child's; negative is the signal that ended it; null where there was none.")
]
RunCode = Annotated[str, Field(description="What happened; docs/errors.md has what helps.")]
Figures = Annotated[dict[str, Any], GetPydanticSchema(lambda _source, handler: handler(Timing))]
"""A ``Timing``, as a dictionary."""


class Status(TypedDict):
    """One word."""

    status: str


class ChatAnswer(TypedDict):
    """An answer, with its timing. What is not known is null."""

    success: Literal[True]
    prompt: Annotated[str, Field(description="Yours.")]
    response: Response
    output: Annotated[
        str | None,
        Field(
            description="All that the child printed: the demo's log, then pytest's report; the middle of more than "
            "1 MiB is left out. Null on the direct engine."
        ),
    ]
    tokens_generated: TokensGenerated
    time_seconds: Annotated[float, Field(description="What you waited for, the line included.")]
    tokens_per_second: Annotated[float | None, Field(description="`tokens_generated` / `time_seconds`.")]
    run_id: RunId
    engine: EngineName
    model: Model
    device: DeviceName
    finish_reason: FinishReason
    note: Note
    timing: Figures


class _Run(TypedDict):
    run_id: RunId
    status: Annotated[str, Field(description="The last four are for good.", json_schema_extra={"enum": list(STATUSES)})]
    position: Annotated[
        int | None, Field(description="Its place in the line, 1 for the next; null when it does not wait.")
    ]
    prompt: Annotated[str, Field(description="What was asked; so are the next four.")]
    max_tokens: int
    temperature: Annotated[float | None, Field(description="Null is the demo's default, 0.7.")]
    top_p: float
    seed: int | None
    attempts: Annotated[int, Field(description="How often it was given to a child.")]
    accepted_at: When
    started_at: When
    finished_at: When
    time_seconds: Seconds
    engine: EngineName


class Succeeded(TypedDict):
    """How a run ended that has an answer."""

    success: Literal[True]
    response: Response
    prompt_tokens: PromptTokens
    tokens_generated: TokensGenerated
    tokens_per_second: Annotated[float | None, Field(description="`tokens_generated` / `time_seconds`.")]
    finish_reason: FinishReason
    note: Note
    model: Model
    device: DeviceName
    timing: Figures


class Failed(TypedDict):
    """How a run ended that has no answer."""

    success: Literal[False]
    error: Annotated[str, Field(description="What is wrong, in one sentence.")]
    code: RunCode
    next_step: Annotated[str, Field(description="What to do about it.")]
    exit_code: ExitCode
    model: Model
    device: DeviceName
    timing: Figures


class OpenRun(_Run):
    """A run that waits or runs."""


class SucceededRun(_Run, Succeeded):
    """A run that has ended with an answer."""


class FailedRun(_Run, Failed):
    """A run that has ended without an answer."""


RunRecord = OpenRun | SucceededRun | FailedRun


class _Runs(TypedDict):
    runs: Annotated[list[RunRecord], Field(description="One for each prompt, in their order.")]


class AcceptedRun(OpenRun, _Runs):
    """What was accepted: the fields of the first run, and every run in `runs`."""

    success: Literal[True]


class RepeatedRun(SucceededRun, _Runs):
    """As an accepted run; it was accepted before, with the same Idempotency-Key, and has ended with an answer."""


class RepeatedFailedRun(FailedRun, _Runs):
    """As an accepted run; it was accepted before, with the same Idempotency-Key, and has ended without an answer."""


Accepted = AcceptedRun | RepeatedRun | RepeatedFailedRun


class RunPage(TypedDict):
    """Runs, the newest first."""

    runs: list[RunRecord]
    next: Annotated[str | None, Field(description="The path of the following page; null on the last one.")]


class Queue(TypedDict):
    """The line before the engine."""

    waiting: int
    running: int
    limit: Annotated[int, Field(description="How many may wait.")]
    slots: NotRequired[Annotated[int, Field(description="How many the direct engine answers at the same time.")]]


class DeviceHealth(TypedDict):
    """A device, as `/health` tells of it."""

    name: DeviceName
    state: Annotated[str, Field(json_schema_extra={"enum": list(DEVICE_STATES)})]
    reason: Annotated[str | None, Field(description="Why it is in doubt, or has failed; null where it is well.")]
    since: Annotated[float | None, Field(description="Unix seconds; null where it was always so.")]
    warm: Annotated[str, Field(description="What a waiting child has done: `imports`; `off` where none waits.")]


class ModelPlace(TypedDict, total=False):
    """Where the model is: one of the two, by what its demo reads."""

    llama_dir: str
    hf_model: str


class ModelHealth(ModelPlace):
    """The model, as `/health` tells of it."""

    model: Model
    model_loaded: Annotated[bool, Field(description="Whether it is in memory now.")]
    settings: NotRequired[Annotated[dict[str, Any], Field(description="For `demo-api compare`.")]]


class EngineHealth(ModelHealth):
    """What `/health` says beside the status."""

    queue: Queue | None
    device: Annotated[DeviceHealth | None, Field(description="The best one; null before the model is in memory.")]
    devices: list[DeviceHealth]


class BriefHealth(TypedDict):
    """How the server is, for who has no key."""

    status: Literal["healthy", "starting", "unhealthy"]
    note: Annotated[str, Field(description="What to expect, or what is wrong and what to do about it.")]
    engine: EngineName


class Health(EngineHealth, BriefHealth):
    """How the server is."""


class _Event(TypedDict):
    run_id: RunId
    at: Annotated[float | None, Field(description="Unix seconds; null where the child did not say.")]


class QueuedEvent(_Event):
    """Accepted; moved up in the line; back in the line (`again`)."""

    position: NotRequired[int]
    again: NotRequired[Literal[True]]


class StartedEvent(_Event):
    """Given to a child, or to the model in memory."""

    attempt: int
    batch_size: Annotated[int, Field(description="How many runs the child was given together.")]
    device: DeviceName


class PhaseEvent(_Event):
    """The child has come to another part of its work."""

    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})]


class ProgressEvent(_Event):
    """Tokens are made; told five times a second at most."""

    iteration: int
    tokens_per_second_per_user: float | None


class TextEvent(_Event):
    """Text was made."""

    added: Annotated[str, Field(description="What it adds to the text so far.")]
    best_effort: NotRequired[
        Annotated[Literal[True], Field(description="The text so far may differ from the answer, which is in `done`.")]
    ]


class _Done(TypedDict):
    status: Annotated[str, Field(json_schema_extra={"enum": list(STATUSES[2:])})]
    time_seconds: Seconds


class DoneSucceeded(_Done, Succeeded):
    """A run ended with an answer."""


class DoneFailed(_Done, Failed):
    """A run ended without an answer."""


Done = DoneSucceeded | DoneFailed


class SucceededEvent(_Event, DoneSucceeded):
    """The last event of a run that has an answer."""


class FailedEvent(_Event, DoneFailed):
    """The last event of a run that has none."""


EVENTS = {
    "queued": QueuedEvent,
    "started": StartedEvent,
    "phase": PhaseEvent,
    "progress": ProgressEvent,
    "text": TextEvent,
    "done": SucceededEvent | FailedEvent,
}
"""The data of each kind of event."""
