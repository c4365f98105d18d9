"""Examples of requests and answers, as they were really sent: in ``examples.json``, streams and logs line by line."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from demo_api import errors
from demo_api.errors import DemoApiError, ErrorBody, RunFailed
from demo_api.web.openai.answers import openai_error

Example = dict[str, Any]

_REQUEST_ID = "19bc6972e494868f"
_RUN_ID = "20261125-072708-b58a6cce"

# One for each code that a client is likely to meet. The exceptions make the bodies, as they do for real ones.
_ERRORS: list[DemoApiError] = [
    errors.BadRequest("The field 'max_tokens' is wrong: should be less than or equal to 2048.", field="max_tokens"),
    errors.Unauthorized("The key is missing."),
    errors.KeysNeeded("This server has no keys, so it answers its own machine only."),
    errors.WrongHost("This server is not 'demo.example.com'."),
    errors.RateLimited("More than 60 requests were sent within a minute.", retry_after=17),
    errors.MetricsUnavailable("The metrics in metrics.db cannot be read now: database is locked."),
    errors.SetupError("LLAMA_DIR is /models/llama, which does not exist.", next_step="Set it to the model's folder."),
    errors.Starting("The model is being loaded.", phase="load", retry_after=1),
    errors.QueueFull("32 runs are waiting, and 32 may.", retry_after=41),
    errors.TooManyWaiting(),
    errors.DeviceFailed("The device has failed: the reset command ended with exit code 1."),
    errors.ShuttingDown("The server is stopping and takes no more runs.", retry_after=30),
    errors.LedgerUnavailable("The ledger is too busy."),
    errors.StorageFull("There is no room left on the disk of the ledger."),
    errors.IdempotencyConflict("The Idempotency-Key was used before, for another request."),
    errors.ModelNotFound("There is no model 'gpt-4' here, but 'SmolLM2-135M-Instruct'.", field="model"),
    errors.NoSuchRun(f"There is no run {_RUN_ID}."),
    errors.NoLog(f"There is no log of run {_RUN_ID}: it has not started yet, or the log was removed."),
    errors.RunEnded("The run has ended already: succeeded.", run_id=_RUN_ID),
    RunFailed(
        "The demo could not be loaded: RuntimeError: TT_FATAL No chips detected in the cluster.",
        code="collection_error",
        run_id=_RUN_ID,
        exit_code=2,
        time_seconds=14.203,
    ),
    RunFailed(
        "The run took longer than 900 s and was stopped.",
        code="timed_out",
        run_id=_RUN_ID,
        exit_code=2,
        time_seconds=901.37,
    ),
    RunFailed("The run was cancelled.", code="cancelled", run_id=_RUN_ID, exit_code=None, time_seconds=3.518),
    DemoApiError("The server failed to answer."),
]


@cache
def _recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files(__package__).joinpath("examples.json").read_text(encoding="utf-8"))
    return found


def of_body(operation_id: str, engine: str) -> dict[str, Example]:
    """Of a request's body, by their names; empty where there is none."""
    return _named(_recorded().get(operation_id, {}).get("body", {}), engine)


def of_answer(operation_id: str, media: str, engine: str) -> dict[str, Example]:
    """Of an answer, by their names; empty where there is none."""
    answers = _recorded().get(operation_id, {}).get("answers", {})
    return _named(answers.get(media, {}), engine, joined=media.startswith("text/"))


def errors_told(*, openai: bool = False) -> dict[str, Example]:
    """Of errors, by their names."""
    return {error_name(error.code, openai=openai): {"value": _told(error, openai=openai)} for error in _ERRORS}


def error_name(code: str, *, openai: bool) -> str:
    """What the example of an error with this code is called."""
    return f"openai_{code}" if openai else code


def _told(error: DemoApiError, *, openai: bool) -> object:
    body: ErrorBody = {**error.body(), "request_id": _REQUEST_ID}
    return openai_error(body, error.status_code) if openai else body


def _named(recorded: dict[str, Any], engine: str, *, joined: bool = False) -> dict[str, Example]:
    if engine not in recorded:
        return {}
    value = recorded[engine]
    return {engine: {"value": "\n".join(value) if joined else value}}
