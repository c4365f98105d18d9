"""The example run that the routes show their answers with, and an example of each error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from demo_api import errors
from demo_api.errors import DemoApiError, RunFailed
from demo_api.messages import Answer, Event, Failure, Result, Run, Timing
from demo_api.messages.health import Estimate
from demo_api.web.event_stream import Encoder
from demo_api.web.parse import check_request

MODEL = "SmolLM2-135M-Instruct.Q4_1"
RUN_ID = "20261125-082212-6620bb51"
_SAMPLING = {"max_tokens": 32, "temperature": 0}
BODY = {"prompt": "What is 2+2?", **_SAMPLING}
BATCH_BODY = {"prompts": ["What is 2+2?", "Name three primary colors."], **_SAMPLING}
LOG = """\
demo_api_child: started
demo_api_child: collected
2026-11-25 08:22:12.230 | DEBUG    | conftest:mesh_device:67 - multidevice with 1 devices is created
..."""

_RESPONSE = "The answer to this classic math problem is 4."
_ACCEPTED_AT = 1795594932.0
_TIMING = {
    "demo": Timing(
        warm="imports",
        queue_seconds=0.005,
        startup_seconds=0.002,
        startup_ahead_seconds=0.146,
        load_seconds=0.166,
        prefill_compile_seconds=0.024,
        prefill_seconds=0.176,
        decode_compile_seconds=0.012,
        decode_seconds=0.185,
        teardown_seconds=0.07,
        ttft_ms=87.63,
        decode_tokens_per_second=108.0,
    ),
    "direct": Timing(
        queue_seconds=0.001,
        prefill_seconds=0.53,
        decode_seconds=0.118,
        ttft_ms=531.26,
        decode_tokens_per_second=84.75,
    ),
}

ESTIMATE: Estimate = {"low_seconds": 0.583, "high_seconds": 0.71, "quantiles": [0.1, 0.9], "runs": 12}
QUEUED = Run(RUN_ID, check_request(BODY), position=1, accepted_at=_ACCEPTED_AT)
QUEUED_NEXT = replace(
    QUEUED,
    run_id="20261125-082212-17f0534f",
    request=check_request({"prompt": "Name three primary colors.", **_SAMPLING}),
    position=2,
)
CANCELLED = replace(
    QUEUED,
    status="cancelled",
    position=None,
    finished_at=_ACCEPTED_AT + 0.333,
    time_seconds=0.333,
    result=Result(RUN_ID, failure=Failure("cancelled", "The run was cancelled.")),
)


def succeeded(engine: str) -> Run:
    """The run with its answer, as this engine gives it."""
    return replace(
        QUEUED,
        status="succeeded",
        position=None,
        started_at=_ACCEPTED_AT + 0.005,
        finished_at=_ACCEPTED_AT + 0.649,
        time_seconds=0.649,
        attempts=1,
        result=Result(
            RUN_ID,
            Answer(_RESPONSE, 11, prompt_tokens=37),
            timing=_TIMING[engine],
            model=MODEL,
            device="CPU",
            finish_reason="stop",
        ),
    )


def stream(engine: str, encoder: Encoder) -> str:
    """The run as a stream of events, shortened."""
    written = (encoder.encode(number, event) for number, event in enumerate(_events(engine), 1))
    return b"".join([encoder.opening(), *written]).decode()


def _events(engine: str) -> Iterator[Event]:
    is_demo = engine == "demo"
    started: dict[str, object] = {"attempt": 1, "batch_size": 1, "device": "device" if is_demo else "CPU"}
    if not is_demo:
        started["estimate"] = ESTIMATE
    yield Event("queued", _ACCEPTED_AT, {"position": 1} if is_demo else {})
    yield Event("started", _ACCEPTED_AT + 0.005, started)
    yield Event("phase", _ACCEPTED_AT + 0.007, {"phase": "load" if is_demo else "prefill"})
    yield Event("phase", _ACCEPTED_AT + 0.385, {"phase": "decode"})
    yield Event("progress", _ACCEPTED_AT + 0.385, {"iteration": 0, "tokens_per_second_per_user": 81.2})
    yield Event("text", _ACCEPTED_AT + 0.55, {"added": _RESPONSE, **({"best_effort": True} if is_demo else {})})
    yield Event("done", _ACCEPTED_AT + 0.649)


_ERRORS: list[DemoApiError] = [
    errors.BadRequest("The field 'max_tokens' is wrong: should be less than or equal to 2048.", field="max_tokens"),
    errors.Unauthorized("The key is missing."),
    errors.KeysNeeded("This server has no keys, so it answers only its own machine."),
    errors.WrongHost("This server is not 'demo.example.com'."),
    errors.RateLimited("More than 60 requests were sent within a minute.", retry_after=17),
    errors.MetricsUnavailable("The metrics in metrics.db cannot be read now: database is locked."),
    errors.SetupError("LLAMA_DIR is /models/llama, which does not exist.", next_step="Set it to the model's folder."),
    errors.Starting("The model is being loaded.", phase="load", retry_after=1),
    errors.QueueFull("32 runs are waiting, and 32 may.", retry_after=41),
    errors.TooManyWaiting(),
    errors.DeviceFailed("The device has failed: the reset command ended with exit code 1."),
    errors.ShuttingDown("The server is stopping and accepts no more runs.", retry_after=30),
    errors.LedgerUnavailable("The ledger is too busy."),
    errors.StorageFull("The ledger's disk is full."),
    errors.IdempotencyConflict("The Idempotency-Key was used before, for a different request."),
    errors.NoWorker("No worker is connected, so nothing would be run.", retry_after=10),
    errors.ModelNotFound(f"There is no model 'gpt-4' here, but '{MODEL}'.", field="model"),
    errors.NoSuchRun(f"There is no run {RUN_ID}."),
    errors.NoLog(f"There is no log of run {RUN_ID}: it has not started yet, or the log was removed."),
    errors.RunEnded("The run has already ended: succeeded.", run_id=RUN_ID),
    RunFailed(
        "The demo could not be loaded: RuntimeError: TT_FATAL No chips detected in the cluster.",
        code="collection_error",
        run_id=RUN_ID,
        exit_code=2,
        time_seconds=14.203,
    ),
    RunFailed(
        "The run took longer than 900 s and was stopped.",
        code="timed_out",
        run_id=RUN_ID,
        exit_code=2,
        time_seconds=901.37,
    ),
    RunFailed("The run was cancelled.", code="cancelled", run_id=RUN_ID, exit_code=None, time_seconds=3.518),
    DemoApiError("The server failed to answer."),
]
ERRORS = {error.code: error for error in _ERRORS}
"""An error for each code that a client is likely to meet."""
