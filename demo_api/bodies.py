"""The JSON that clients get: its types, and the functions that make the bodies of runs.

mypy checks the code against the types, and the OpenAPI document is generated from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, cast

from pydantic import Field, GetPydanticSchema
from typing_extensions import TypedDict, Unpack

from demo_api.errors import Facts, RunFailed
from demo_api.messages import STATUSES, Answer, Failure, Result, Run, Timing
from demo_api.messages.health import DeviceName, EngineHealth, Estimate, Model

RunId = Annotated[str, Field(description="The run's ID; IDs sort by time.")]
EngineName = Annotated[
    str, Field(description="The engine that answered.", json_schema_extra={"enum": ["demo", "direct"]})
]
Response = Annotated[str, Field(description="The model's answer.")]
TokensGenerated = Annotated[
    int | None, Field(description="Tokens in the response, not counting the end-of-sequence token.")
]
PromptTokens = Annotated[
    int | None, Field(description="Tokens in the prompt, including its template; null if not counted.")
]
FinishReason = Annotated[
    str | None, Field(description="`stop`: the model ended its answer; `length`: it reached `max_tokens`.")
]
Note = Annotated[str | None, Field(description="What is missing, and why; else null.")]
When = Annotated[
    str | None, Field(description="UTC, such as 2026-11-22T18:41:26.123Z; null if it has not happened yet.")
]
Seconds = Annotated[float | None, Field(description="From acceptance to end; null until then.")]
ExitCode = Annotated[
    int | None,
    Field(description="The child's exit code; negative for the signal that ended it; null if no child was started."),
]
RunCode = Annotated[str, Field(description="What happened; docs/errors.md says what helps.")]
Figures = Annotated[dict[str, Any], GetPydanticSchema(lambda _source, handler: handler(Timing))]
"""A ``Timing``, as a dictionary."""


class Status(TypedDict):
    """One word."""

    status: str


class ChatAnswer(TypedDict):
    """An answer, with its timing. What is not known is null."""

    success: Literal[True]
    prompt: Annotated[str, Field(description="Your prompt.")]
    response: Response
    output: Annotated[
        str | None,
        Field(
            description="Everything the child printed: the demo's log, then pytest's report; the middle of more than "
            "1 MiB is left out. Null on the direct engine, and where only another host has it."
        ),
    ]
    tokens_generated: TokensGenerated
    time_seconds: Annotated[float, Field(description="What you waited for, including the time in the queue.")]
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
    status: Annotated[str, Field(description="The last four are final.", json_schema_extra={"enum": list(STATUSES)})]
    position: Annotated[
        int | None, Field(description="Its position in the queue, 1 for the next; null if it is not waiting.")
    ]
    prompt: Annotated[
        str | None, Field(description="From the request, like the next four. Null if the ledger is damaged.")
    ]
    max_tokens: int | None
    temperature: Annotated[float | None, Field(description="Null is the demo's default, 0.7.")]
    top_p: float | None
    seed: int | None
    attempts: Annotated[int, Field(description="How many times it was given to a child.")]
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
    """How a run without an answer ended."""

    success: Literal[False]
    error: Annotated[str, Field(description="What is wrong, in one sentence.")]
    code: RunCode
    next_step: Annotated[str, Field(description="What to do about it.")]
    exit_code: ExitCode
    model: Model
    device: DeviceName
    timing: Figures


class OpenRun(_Run):
    """A waiting or running run."""


class SucceededRun(_Run, Succeeded):
    """A run that ended with an answer."""


class FailedRun(_Run, Failed):
    """A run that ended without an answer."""


RunRecord = OpenRun | SucceededRun | FailedRun


class _Runs(TypedDict):
    runs: Annotated[list[RunRecord], Field(description="One for each prompt, in order.")]
    estimate: Annotated[
        Estimate | None,
        Field(description="By the latest runs that differ in their prompts only; null if they are too few."),
    ]


class AcceptedRun(OpenRun, _Runs):
    """The accepted runs: the fields of the first, and all of them in `runs`."""

    success: Literal[True]


class RepeatedRun(SucceededRun, _Runs):
    """Like an accepted run, but accepted before with the same Idempotency-Key, and ended with an answer."""


class RepeatedFailedRun(FailedRun, _Runs):
    """Like an accepted run, but accepted before with the same Idempotency-Key, and ended without an answer."""


Accepted = AcceptedRun | RepeatedRun | RepeatedFailedRun


class RunPage(TypedDict):
    """Runs, the newest first."""

    runs: list[RunRecord]
    next: Annotated[str | None, Field(description="The path of the next page; null on the last one.")]


class BriefHealth(TypedDict):
    """How the server is, for who has no key."""

    status: Literal["healthy", "starting", "unhealthy"]
    note: Annotated[str, Field(description="What to expect, or what is wrong and what to do about it.")]
    engine: EngineName


class Health(EngineHealth, BriefHealth):
    """How the server is."""


def answer(run: Run, *, engine: str, output: str | None, seconds: float) -> ChatAnswer:
    """What ``POST /chat`` answers for a run that has ended.

    Args:
        output: everything that the child printed, readable; None where there is no child.
        seconds: what the client waited for, the wait in the queue included.

    Raises:
        RunFailed: the run did not succeed.
    """
    seconds = round(seconds, 3)
    result, given = answered(run, seconds=seconds)
    tokens = given.tokens_generated
    return {
        "success": True,
        "prompt": run.request.prompt,
        "response": given.response,
        "output": output,
        "tokens_generated": tokens,
        "time_seconds": seconds,
        "tokens_per_second": _rate(tokens, seconds),
        "run_id": run.run_id,
        "engine": engine,
        "model": result.model,
        "device": result.device,
        "finish_reason": result.finish_reason,
        "note": result.note,
        "timing": dataclasses.asdict(result.timing),
    }


def answered(run: Run, *, seconds: float) -> tuple[Result, Answer]:
    """The result of a run that has ended, and its answer.

    Args:
        seconds: what the client waited for.

    Raises:
        RunFailed: the run did not succeed.
    """
    result = _result(run)
    if result.answer is None:
        raise _failed(result, run_id=run.run_id, exit_code=result.exit_code, time_seconds=round(seconds, 3))
    return result, result.answer


def record(run: Run, engine: str) -> RunRecord:
    """What ``GET /runs/{id}`` says of a run, whatever its status."""
    if not run.ended:
        return _open(run, engine)
    # mypy checks the two parts, but does not know how to add one of two types.
    return cast(RunRecord, {**_open(run, engine), **ending(run)})


def accepted(runs: Sequence[Run], engine: str, estimate: Estimate | None) -> Accepted:
    """What ``POST /runs`` answers; runs that were accepted before may have ended already."""
    records = [record(run, engine) for run in runs]
    return cast(Accepted, {"success": True, **records[0], "runs": records, "estimate": estimate})


def ending(run: Run) -> Succeeded | Failed:
    """How a run ended."""
    result = _result(run)
    timing = dataclasses.asdict(result.timing)
    if result.answer is None:
        error = _failed(result)
        return {
            "success": False,
            "error": str(error),
            "code": error.code,
            "next_step": error.next_step,
            "exit_code": result.exit_code,
            "model": result.model,
            "device": result.device,
            "timing": timing,
        }
    tokens = result.answer.tokens_generated
    return {
        "success": True,
        "response": result.answer.response,
        "prompt_tokens": result.answer.prompt_tokens,
        "tokens_generated": tokens,
        "tokens_per_second": _rate(tokens, run.time_seconds),
        "finish_reason": result.finish_reason,
        "note": result.note,
        "model": result.model,
        "device": result.device,
        "timing": timing,
    }


def _open(run: Run, engine: str) -> OpenRun:
    request = run.request
    return {
        "run_id": run.run_id,
        "status": run.status,
        "position": run.position,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "prompt": request.prompt,
        "attempts": run.attempts,
        "accepted_at": _iso(run.accepted_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
        "time_seconds": run.time_seconds,
        "engine": engine,
    }


def _result(run: Run) -> Result:
    return run.result or Result(run.run_id)


def _failed(result: Result, **facts: Unpack[Facts]) -> RunFailed:
    failure = result.failure or Failure("no_answer", "The run ended without an answer.")
    return RunFailed(
        failure.message, code=failure.code, next_step=failure.next_step, log_folder=result.log_folder, **facts
    )


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return round(tokens / seconds, 3) if tokens is not None and seconds else None


def _iso(unix_seconds: float | None) -> str | None:
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
