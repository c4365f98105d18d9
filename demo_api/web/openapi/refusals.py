"""The errors that routes may answer, described by the exceptions that are raised for them."""

from __future__ import annotations

from dataclasses import dataclass

from demo_api import errors
from demo_api.errors import RUN_CODES, DemoApiError, RunFailed
from demo_api.web.error_handlers import HTTP_ERRORS


@dataclass(frozen=True)
class Refusal:
    """One error that a route may answer; ``meaning`` is a sentence."""

    status: int
    code: str
    meaning: str


def of(*kinds: type[DemoApiError]) -> tuple[Refusal, ...]:
    """The refusals that these exceptions become."""
    return tuple(Refusal(kind.status_code, kind.code, (kind.__doc__ or "").partition("\n")[0]) for kind in kinds)


def _run_failure(code: str) -> Refusal:
    return Refusal(RunFailed("", code=code).status_code, code, RUN_CODES[code])


# What any route may answer. KEY: any route that needs one.
ANY = (
    Refusal(500, DemoApiError.code, "The server failed to answer; its log has the reason."),
    *of(errors.KeysNeeded, errors.CrossSite, errors.WrongHost, errors.RateLimited),
)
KEY = of(errors.Unauthorized)

# What reading a body, the ledger, and waiting for a run may raise.
BODY = (*of(errors.BadRequest), *(Refusal(status, *HTTP_ERRORS[status]) for status in (413, 415)))
LEDGER = of(errors.LedgerUnavailable, errors.StorageFull)
WAITING = of(errors.TooManyWaiting)

# By engine: what its check() raises, what its begin() raises, and how a run ends that has no answer.
READY = {
    "demo": (
        *of(errors.SetupError, errors.NoWorker, errors.DeviceFailed, errors.DeviceUnavailable, errors.ShuttingDown),
        *LEDGER,
    ),
    "direct": of(errors.SetupError, errors.Starting, errors.ShuttingDown),
}
ACCEPTED = {engine: (*of(errors.ModelNotFound), *ready, *of(errors.QueueFull)) for engine, ready in READY.items()}
ANSWERED = {
    "demo": (*(_run_failure(code) for code in RUN_CODES if code != "engine_lost"), *of(errors.NoSuchRun)),
    "direct": tuple(map(_run_failure, ("internal_error", "engine_lost", "timed_out", "cancelled"))),
}
