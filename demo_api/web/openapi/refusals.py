"""Which errors a route may answer, from the exceptions themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from demo_api import errors
from demo_api.errors import RUN_CODES, DemoApiError, RunFailed
from demo_api.web.error_handlers import HTTP_ERRORS


@dataclass(frozen=True)
class Refusal:
    """One error.

    Attributes:
        code: None where only its status is known.
        meaning: a sentence.
    """

    status: int
    code: str | None
    meaning: str


def of(*kinds: type[DemoApiError]) -> tuple[Refusal, ...]:
    """Those that these exceptions are answered with."""
    return tuple(Refusal(kind.status_code, kind.code, _first_line(kind)) for kind in kinds)


def http(*statuses: int) -> tuple[Refusal, ...]:
    """Those that Flask itself finds."""
    return tuple(Refusal(status, *HTTP_ERRORS[status]) for status in statuses)


def family() -> list[type[DemoApiError]]:
    """Every exception that a client may be told."""
    found = [DemoApiError]
    for kind in found:  # it grows meanwhile
        found += [heir for heir in kind.__subclasses__() if heir.__module__ == errors.__name__]
    return found


def of_status(status: int, meaning: str) -> tuple[Refusal, ...]:
    """Those of this status that there are, whoever raises them; without a code where none is of our family."""
    return of(*(kind for kind in family() if kind.status_code == status)) or (Refusal(status, None, meaning),)


def run_failures(codes: Iterable[str]) -> tuple[Refusal, ...]:
    """Those of a run that ended without an answer."""
    return tuple(Refusal(RunFailed("", code=code).status_code, code, RUN_CODES[code]) for code in codes)


def _first_line(kind: type[DemoApiError]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


UNEXPECTED = (Refusal(500, DemoApiError.code, "The server failed to answer; its log has the reason."),)
BODY = (*of(errors.BadRequest), *http(413, 415))
LEDGER = of(errors.LedgerUnavailable, errors.StorageFull)
WAITING = of(errors.TooManyWaiting)
KEY = of_status(401, "The server wants a key, and this is none of its keys.")
DOOR = of(*(kind for kind in family() if kind.status_code in (403, 421)))
RATE = of_status(429, "Too many requests from this client; the header `Retry-After` has seconds.")

# What check() raises, and begin() beside that.
READY = {
    "demo": (*of(errors.SetupError, errors.DeviceFailed, errors.ShuttingDown), *LEDGER),
    "direct": of(errors.SetupError, errors.Starting, errors.ShuttingDown),
}
ACCEPTED = {
    "demo": (*READY["demo"], *of(errors.QueueFull)),
    "direct": (*READY["direct"], *of(errors.QueueFull)),
}
ANSWERED = {
    "demo": (*run_failures(RUN_CODES), *of(errors.NoSuchRun)),
    "direct": run_failures(["internal_error", "timed_out", "cancelled"]),
}
