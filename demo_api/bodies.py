"""The JSON that clients get of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone

from typing_extensions import Unpack

from demo_api.error_shapes import Facts
from demo_api.errors import RunFailed
from demo_api.messages import Answer, Failure, Result, Run
from demo_api.shapes import Accepted, ChatAnswer, Done, Failed, OpenRun, RunRecord, Succeeded


def answer(run: Run, *, engine: str, output: str | None, seconds: float) -> ChatAnswer:
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
        facts: Facts = {"run_id": run.run_id, "exit_code": result.exit_code, "time_seconds": round(seconds, 3)}
        raise _failed(result, **facts)
    return result, result.answer


def record(run: Run, engine: str) -> RunRecord:
    """What ``GET /runs/{id}`` says of a run, whatever its status."""
    body = _open(run, engine)
    if not run.ended:
        return body
    ending = _ending(run)
    if ending["success"]:  # for mypy, which then knows which of the two it is
        return {**body, **ending}
    return {**body, **ending}


def accepted(runs: Sequence[Run], engine: str) -> Accepted:
    """What ``POST /runs`` answers; runs that were accepted before may have ended already."""
    first, records = runs[0], [record(run, engine) for run in runs]
    body = _open(first, engine)
    if not first.ended:
        return {"success": True, **body, "runs": records}
    ending = _ending(first)
    if ending["success"]:
        return {**body, **ending, "runs": records}
    return {**body, **ending, "runs": records}


def done(run: Run) -> Done:
    """What the last event of a run says."""
    ending = _ending(run)
    if ending["success"]:
        return {"status": run.status, "time_seconds": run.time_seconds, **ending}
    return {"status": run.status, "time_seconds": run.time_seconds, **ending}


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


def _ending(run: Run) -> Succeeded | Failed:
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


def _result(run: Run) -> Result:
    return run.result or Result(run.run_id, failure=Failure("no_answer", "The run ended without an answer."))


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
