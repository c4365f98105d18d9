"""The errors that users see: one family of exceptions, each with a status, a code and a next step."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict, Unpack


class FurtherFacts(TypedDict, total=False):
    """Additional facts about an error, except the field."""

    phase: Annotated[str, Field(description="What the server is doing before it is ready.")]
    retry_after: Annotated[int, Field(description="Seconds; the header `Retry-After` has them too.")]
    run_id: Annotated[str, Field(description="The run concerned.")]
    exit_code: Annotated[
        int | None,
        Field(
            description="The child's exit code; negative for the signal that ended it; null if no child was started."
        ),
    ]
    time_seconds: Annotated[float, Field(description="What you waited for, including the time in the queue.")]
    available_endpoints: Annotated[list[str], Field(description="Every method and path.")]


class Facts(FurtherFacts, total=False):
    """Additional facts about an error."""

    field: Annotated[str, Field(description="The part of the request that is wrong.")]


class Problem(Facts):
    """What went wrong, and what to do about it."""

    success: Literal[False]
    error: Annotated[str, Field(description="What is wrong, in one sentence.")]
    code: Annotated[str, Field(description="What is wrong, for programs; docs/errors.md has them all.")]
    next_step: Annotated[str, Field(description="What to do about it.")]


class ErrorBody(Problem):
    """What went wrong, and what to do about it."""

    request_id: Annotated[str, Field(description="As in the header `X-Request-Id`.")]


class DemoApiError(Exception):
    """An error that a user can act on.

    Args:
        message: one sentence that says what is wrong.
        next_step: one sentence that says what to do about it.
        fields: further facts for the client.
    """

    status_code = 500
    code = "internal_error"
    next_step = "Look at the server's log."

    def __init__(self, message: str, *, next_step: str | None = None, **fields: Unpack[Facts]) -> None:
        super().__init__(message)
        self.next_step = _MORE_FILES if _lacks_files(sys.exc_info()[1]) else next_step or self.next_step
        self.fields: Facts = fields

    def body(self) -> Problem:
        """What a client gets as JSON."""
        return {
            "success": False,
            "error": str(self),
            "code": self.code,
            "next_step": self.next_step,
            **self.fields,
        }


_MORE_FILES = "Raise the limit of open files (`ulimit -n`), or close what uses them up."


def _lacks_files(handled: BaseException | None) -> bool:
    """Whether what is being turned into a sentence is that no more files can be opened, which can happen anywhere."""
    return isinstance(handled, OSError) and handled.errno in (errno.EMFILE, errno.ENFILE)


class BadRequest(DemoApiError):
    """The client's JSON cannot be accepted."""

    status_code = 400
    code = "bad_request"
    next_step = "Correct that field and send the request again."


class Unauthorized(DemoApiError):
    """The server has keys, and the client did not send one of them."""

    status_code = 401
    code = "unauthorized"
    next_step = 'Send one of the server\'s keys with the header "Authorization: Bearer KEY".'


class KeysNeeded(DemoApiError):
    """A request from another machine, and the server has no keys."""

    status_code = 403
    code = "keys_needed"
    next_step = "Set DEMO_API_KEYS or DEMO_API_KEYS_FILE for the server, or DEMO_API_INSECURE=1 to accept everyone."


class WrongHost(DemoApiError):
    """The request is for another host name: a page elsewhere may have made a browser send it."""

    status_code = 421
    code = "wrong_host"
    next_step = "Use http://127.0.0.1, or add the name to the server's DEMO_API_HOSTS."


class CrossSite(DemoApiError):
    """A browser sent this for a page of another site."""

    status_code = 403
    code = "cross_site"
    next_step = "Use this server's own page, or add the page's origin to the server's DEMO_API_CORS_ORIGINS."


class RateLimited(DemoApiError):
    """The client has reached its limit of requests per minute."""

    status_code = 429
    code = "rate_limited"
    next_step = "Wait the seconds in Retry-After and send the request again."


class SetupError(DemoApiError):
    """This machine or its settings cannot run the demo: nothing was started."""

    status_code = 503
    code = "not_set_up"
    next_step = "Start the server with --demo-home and --llama-dir set to a demo and a model."


class Starting(DemoApiError):
    """The direct engine's model is not in memory yet."""

    status_code = 503
    code = "starting"
    next_step = "Wait until GET /readyz answers 200."


class QueueFull(DemoApiError):
    """The queue is full."""

    status_code = 503
    code = "queue_full"
    next_step = "Wait the seconds in Retry-After and send the request again."


class LedgerUnavailable(DemoApiError):
    """The database cannot be used now: another process holds it, or its server cannot be reached."""

    status_code = 503
    code = "ledger_unavailable"
    next_step = "Try again in a moment; if that does not help, look at the server's log."


class MetricsUnavailable(DemoApiError):
    """The file that the metrics are counted in cannot be used now."""

    status_code = 503
    code = "metrics_unavailable"
    next_step = (
        "If this persists, stop the servers and move metrics.db out of the state folder: counting restarts from zero."
    )


class StorageFull(LedgerUnavailable):
    """The disk of the database is full."""

    status_code = 507
    code = "storage_full"
    next_step = "Make room on the state folder's disk and send the request again."

    @classmethod
    def of(cls, error: Exception) -> StorageFull | None:
        """The same for an error of the operating system; None where that has another reason than a full disk."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(f"The state folder's disk is full: {error.strerror}.")
        return None


class DeviceFailed(DemoApiError):
    """No device can take a run, and a reset did not help."""

    status_code = 503
    code = "device_failed"
    next_step = "Look at the device, then run `demo-api device reset`, or `demo-api device clear` if it is healthy."


class DeviceUnavailable(DemoApiError):
    """The server cannot use any device, because of a file, a disk or the database."""

    status_code = 503
    code = "device_unavailable"
    next_step = "Fix the cause in the error; the server keeps trying, and its log has details."


class NoWorker(DemoApiError):
    """No worker is connected that has the model."""

    status_code = 503
    code = "no_worker"
    next_step = "Start `demo-api worker` on the model's host, or look at its log; `demo-api status` shows who is there."


class IdempotencyConflict(DemoApiError):
    """The Idempotency-Key was used before, for a different request."""

    status_code = 409
    code = "idempotency_conflict"
    next_step = "Use a new Idempotency-Key for a new request."


class ModelNotFound(DemoApiError):
    """The client asks for a model that is not served."""

    status_code = 404
    code = "model_not_found"
    next_step = "GET /v1/models has the name of the model."


class NoSuchRun(DemoApiError):
    """The run is not in the ledger, or no longer."""

    status_code = 404
    code = "no_such_run"
    next_step = "GET /runs lists all stored runs."


class NoLog(DemoApiError):
    """The run has no log."""

    status_code = 404
    code = "no_log"
    next_step = "Wait until the run has started; old logs are removed (DEMO_API_KEEP_DAYS, DEMO_API_KEEP_RUNS)."


class TooManyWaiting(DemoApiError):
    """All threads for clients that wait for runs, or follow them, are in use."""

    status_code = 503
    code = "too_many_waiting"
    next_step = "Use POST /runs and GET /runs/{id}, which do not wait, or close some event streams."

    def __init__(self) -> None:
        super().__init__("Too many clients are waiting for runs or following events.", retry_after=5)


class RunEnded(DemoApiError):
    """The run has ended, so it cannot be cancelled."""

    status_code = 409
    code = "run_ended"
    next_step = "GET the run to see how it ended."


class ShuttingDown(DemoApiError):
    """The server is stopping and accepts no more runs."""

    status_code = 503
    code = "shutting_down"
    next_step = "Send the request again when the server is back."


RUN_CODES = {
    "skipped": "Fix what made the demo skip its test; the error has the reason.",
    "demo_failed": "Fix the cause in the error: a prompt that does not fit, a missing package, a full disk.",
    "collection_error": "Check that the demo home's Python can import the demo, and that there is a device (tt-smi).",
    "interrupted": "Something outside the server ended the child; send the request again.",
    "internal_error": "Check the demo home's pytest and its plugins.",
    "usage_error": "Check that the demo home has a supported simple_text_demo.py, and its conftest.py.",
    "no_tests": "Check that the demo script has a test whose ID contains performance-batch-1.",
    "crashed": "Reset the device if it has one (tt-smi -r) and send the request again.",
    "no_answer": "Send the request again; if it fails again, run the demo by hand with the same prompt.",
    "timed_out": "Raise DEMO_API_RUN_TIMEOUT if the run needs longer, or stop other programs that use the device.",
    "cancelled": "Send the request again.",
    "child_lost": "Look at the server's log: the servers, or the machine, went down during the run. Send it again.",
    "damaged": "Send the request again, and check the state folder's disk and your last backup.",
    "engine_lost": "Send the request again when GET /readyz answers 200: the model is being loaded again.",
    "output_too_large": "Raise DEMO_API_MAX_OUTPUT if the demo needs to print this much.",
}
"""The codes of a failed run, and what to do about each."""


class RunFailed(DemoApiError):
    """A run ended without an answer.

    Args:
        code: one of ``RUN_CODES``, or the code of what kept the server from running it.
        next_step: where the code alone does not say.
        log_folder: where the child's output is kept, for the next step.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        next_step: str | None = None,
        log_folder: str | None = None,
        **fields: Unpack[Facts],
    ) -> None:
        where = f" The child's output is in {log_folder}." if log_folder else ""
        super().__init__(message, next_step=(next_step or RUN_CODES.get(code, self.next_step)) + where, **fields)
        self.code = code
        self.status_code = _RUN_STATUS_CODES.get(code, 500)


_RUN_STATUS_CODES = {
    "timed_out": 504,
    "cancelled": 409,
    BadRequest.code: BadRequest.status_code,
    SetupError.code: SetupError.status_code,
    StorageFull.code: StorageFull.status_code,
}
