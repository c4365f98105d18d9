"""The JSON that clients get of runs."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

from demo_api.errors import RunFailed
from demo_api.messages import Answer, Failure, Result, Run


def answer(run: Run, *, engine: str, output: str | None, seconds: float) -> dict[str, object]:
    """What ``POST /chat`` answers for a run that has ended.

    Args:
        output: everything that the child printed, readable; None where there is no child.
        seconds: what the client waited for, the wait in the line included.

    Raises:
        RunFailed: the run did not succeed.
    """
    seconds = round(seconds, 3)
    result, given = check(run, seconds=seconds)
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


def check(run: Run, *, seconds: float) -> tuple[Result, Answer]:
    """The result of a run that has ended, and its answer.

    Raises:
        RunFailed: the run did not succeed.
    """
    result = _result(run)
    if result.failure is not None or result.answer is None:
        fields = {"run_id": run.run_id, "exit_code": result.exit_code, "time_seconds": round(seconds, 3)}
        raise _failed(result.failure, result, **fields)
    return result, result.answer


def record(run: Run, engine: str) -> dict[str, object]:
    """What ``GET /runs/{id}`` says of a run, whatever its status."""
    body: dict[str, object] = {
        "run_id": run.run_id,
        "status": run.status,
        "position": run.position,
        **run.request.model_dump(),
        "attempts": run.attempts,
        "accepted_at": _iso(run.accepted_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
        "time_seconds": run.time_seconds,
        "engine": engine,
    }
    return {**body, **_ending(run)} if run.ended else body


def done(run: Run) -> dict[str, object]:
    """What the last event of a run says."""
    return {"status": run.status, "time_seconds": run.time_seconds, **_ending(run)}


def _ending(run: Run) -> dict[str, object]:
    result = _result(run)
    common = {"model": result.model, "device": result.device, "timing": dataclasses.asdict(result.timing)}
    if result.answer is None:
        error = _failed(result.failure, result, exit_code=result.exit_code)
        return {**error.body(), **common}
    tokens = result.answer.tokens_generated
    return {
        "success": True,
        "response": result.answer.response,
        "prompt_tokens": result.answer.prompt_tokens,
        "tokens_generated": tokens,
        "tokens_per_second": _rate(tokens, run.time_seconds),
        "finish_reason": result.finish_reason,
        "note": result.note,
        **common,
    }


def _result(run: Run) -> Result:
    return run.result or Result(run.run_id, failure=Failure("no_answer", "The run ended without an answer."))


def _failed(failure: Failure | None, result: Result, **fields: object) -> RunFailed:
    failure = failure or Failure("no_answer", "The run ended without an answer.")
    return RunFailed(
        failure.message, code=failure.code, next_step=failure.next_step, log_folder=result.log_folder, **fields
    )


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return round(tokens / seconds, 3) if tokens is not None and seconds else None


def _iso(unix_seconds: float | None) -> str | None:
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
