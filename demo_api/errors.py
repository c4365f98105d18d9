"""The errors that users see: one family of exceptions, each with a status, a code and a next step."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict, Unpack


class FurtherFacts(TypedDict, total=False):
    """What else an error may tell, beside the field."""

    phase: Annotated[str, Field(description="What the server is doing before it is ready.")]
    retry_after: Annotated[int, Field(description="Seconds; the header `Retry-After` has them too.")]
    run_id: Annotated[str, Field(description="The run that this is about.")]
    exit_code: Annotated[
        int | None, Field(description="The child's; negative is the signal that ended it; null where there was none.")
    ]
    time_seconds: Annotated[float, Field(description="What you waited for, including the time in the queue.")]
    available_endpoints: Annotated[list[str], Field(description="Every method and path.")]


class Facts(FurtherFacts, total=False):
    """What else an error may tell."""

    field: Annotated[str, Field(description="What of the request is wrong.")]


class Problem(Facts):
    """What went wrong, and what to do about it."""

    success: Literal[False]
    error: Annotated[str, Field(description="What is wrong, in one sentence.")]
    code: Annotated[str, Field(description="What is wrong, for programs; docs/errors.md has them all.")]
    next_step: Annotated[str, Field(description="What to do about it.")]


class ErrorBody(Problem):
    """What went wrong, and what to do about it."""

    request_id: Annotated[str, Field(description="The same as in the header `X-Request-Id`.")]


class DemoApiError(Exception):
    """Something a user can do something about.

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
    next_step = "Correct the field that is named and send the request again."


class Unauthorized(DemoApiError):
    """The server has keys, and the client did not send one of them."""

    status_code = 401
    code = "unauthorized"
    next_step = 'Send one of the server\'s keys with the header "Authorization: Bearer KEY".'


class KeysNeeded(DemoApiError):
    """Somebody on another machine asks, and the server has no keys."""

    status_code = 403
    code = "keys_needed"
    next_step = "Set DEMO_API_KEYS or DEMO_API_KEYS_FILE for the server, or DEMO_API_INSECURE=1 to let everybody in."


class WrongHost(DemoApiError):
    """The request is for a name that is not the server's: a page elsewhere may have made a browser send it."""

    status_code = 421
    code = "wrong_host"
    next_step = "Use http://127.0.0.1, or add the name to DEMO_API_HOSTS of the server."


class CrossSite(DemoApiError):
    """A browser sends this for a page of another site, which the server does not allow."""

    status_code = 403
    code = "cross_site"
    next_step = "Use this server's own page, or add the page's origin to DEMO_API_CORS_ORIGINS of the server."


class RateLimited(DemoApiError):
    """The client has sent as many requests as it may in a minute."""

    status_code = 429
    code = "rate_limited"
    next_step = "Wait for as long as Retry-After says and send the request again."


class SetupError(DemoApiError):
    """This machine or its settings cannot run the demo: nothing was started."""

    status_code = 503
    code = "not_set_up"
    next_step = "Start the server with --demo-home and --llama-dir that point at a demo and a model."


class Starting(DemoApiError):
    """The direct engine's model is not in memory yet."""

    status_code = 503
    code = "starting"
    next_step = "Wait until GET /readyz answers 200."


class QueueFull(DemoApiError):
    """As many runs wait as may wait."""

    status_code = 503
    code = "queue_full"
    next_step = "Wait for as long as Retry-After says and send the request again."


class LedgerUnavailable(DemoApiError):
    """The database cannot be used now: another process holds it, or its server cannot be reached."""

    status_code = 503
    code = "ledger_unavailable"
    next_step = "Send the request again in a moment; if that does not help, look at the server's log."


class MetricsUnavailable(DemoApiError):
    """The file that the metrics are counted in cannot be used now."""

    status_code = 503
    code = "metrics_unavailable"
    next_step = "If it comes back, stop the servers and move metrics.db in the state folder away: counting begins anew."


class StorageFull(LedgerUnavailable):
    """The disk of the database is full."""

    status_code = 507
    code = "storage_full"
    next_step = "Make room on the disk of the state folder and send the request again."

    @classmethod
    def of(cls, error: Exception) -> StorageFull | None:
        """The same for an error of the operating system; None where that has another reason than a full disk."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(f"There is no room left on the disk of the state folder: {error.strerror}.")
        return None


class DeviceFailed(DemoApiError):
    """No device is fit for a run, and a reset did not help."""

    status_code = 503
    code = "device_failed"
    next_step = "Look at the device, then run `demo-api device reset`, or `demo-api device clear` when it is well."


class DeviceUnavailable(DemoApiError):
    """The server cannot use a device, for a reason that is not the device's: a file, a disk, the database."""

    status_code = 503
    code = "device_unavailable"
    next_step = "Mend what the error names; the server goes on trying, and its log has more."


class IdempotencyConflict(DemoApiError):
    """The Idempotency-Key was used before for something else."""

    status_code = 409
    code = "idempotency_conflict"
    next_step = "Use a new Idempotency-Key for a new request."


class ModelNotFound(DemoApiError):
    """An OpenAI client asks for a model that is not served."""

    status_code = 404
    code = "model_not_found"
    next_step = "GET /v1/models names the one that is served."


class NoSuchRun(DemoApiError):
    """The ledger does not have this run, or no longer."""

    status_code = 404
    code = "no_such_run"
    next_step = "GET /runs lists the runs that are kept."


class NoLog(DemoApiError):
    """Nothing is kept of what the run's child printed."""

    status_code = 404
    code = "no_log"
    next_step = "Wait until the run has started; logs are removed after DEMO_API_KEEP_DAYS, or when there are too many."


class TooManyWaiting(DemoApiError):
    """As many clients wait for runs, or follow them, as the server has threads for."""

    status_code = 503
    code = "too_many_waiting"
    next_step = "Use POST /runs and GET /runs/{id}, which do not wait, or end some event streams."

    def __init__(self) -> None:
        super().__init__("Too many clients wait for runs or follow their events.", retry_after=5)


class RunEnded(DemoApiError):
    """What has ended can no longer be cancelled."""

    status_code = 409
    code = "run_ended"
    next_step = "GET the run to see how it ended."


class ShuttingDown(DemoApiError):
    """The server is about to leave and takes no more runs."""

    status_code = 503
    code = "shutting_down"
    next_step = "Send the request again when the server is back."


RUN_CODES = {
    "skipped": "Take away what made the demo skip the test; the error says what that was.",
    "demo_failed": "Mend what the error names: a prompt that does not fit, a missing package, a full disk.",
    "collection_error": "Check that the demo home's Python can import the demo, and that a device is there (tt-smi).",
    "interrupted": "Something outside of the server ended the child; send the request again.",
    "internal_error": "Check the demo home's pytest and its plugins.",
    "usage_error": "Check that the demo home holds a simple_text_demo.py that this server knows, and its conftest.py.",
    "no_tests": "Check that the demo script has a test whose id holds performance-batch-1.",
    "crashed": "Reset the device if it has one (tt-smi -r) and send the request again.",
    "no_answer": "Send the request again; if it comes back, run the demo by hand with the same prompt.",
    "timed_out": "Raise DEMO_API_RUN_TIMEOUT if the run needs longer, or end what else holds the device.",
    "cancelled": "Send the request again.",
    "child_lost": "Look at the server's log: its servers, or the machine, went down while they ran it. Send it again.",
    "damaged": "Send the request again, and look at the disk of the state folder, or at the last backup's age.",
    "output_too_large": "Raise DEMO_API_MAX_OUTPUT if the demo may print so much.",
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
        where = f" What the child printed is in {log_folder}." if log_folder else ""
        super().__init__(message, next_step=(next_step or RUN_CODES.get(code, self.next_step)) + where, **fields)
        self.code = code
        self.status_code = _RUN_STATUS_CODES.get(code, 500)


_RUN_STATUS_CODES = {
    "timed_out": 504,
    "cancelled": 409,
    SetupError.code: SetupError.status_code,
    StorageFull.code: StorageFull.status_code,
}
