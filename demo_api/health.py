"""Whether a request would be accepted now, and what ``/health`` says."""

from __future__ import annotations

from contextlib import suppress

from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError, Starting
from demo_api.service import Service

NOTES = {
    "demo": "Every request runs the demo as a child process that loads the model anew: expect seconds on the CPU "
    "edition, 45 seconds to 5 minutes on a Tenstorrent device. Requests that wait together go to one child if they are "
    "alike.",
    "direct": "The model stays in memory: expect milliseconds to seconds.",
}
"""What to expect of each engine."""


def problem(service: Service) -> DemoApiError | None:
    """Why no request would be accepted now, a full line excepted; None if one would be."""
    try:
        service.check()
    except DemoApiError as error:
        return error
    return None


def describe(service: Service) -> dict[str, object]:
    """The body of ``GET /health``. It says less where the ledger cannot be used."""
    name = service.engine_name
    body: dict[str, object] = {"status": "healthy", "note": NOTES[name], "engine": name}
    found = problem(service)
    if found is not None:
        body.update(status=_status(found), note=f"{found} {found.next_step}")
    body.update(model=None, model_loaded=False, queue=None, device=None)
    with suppress(SetupError, LedgerUnavailable):
        body.update(service.describe())
    return body


def describe_briefly(service: Service) -> dict[str, object]:
    """The body of ``GET /health`` for who has no key: no model, no path, nothing of what others do here."""
    return {"status": _status(problem(service)), "note": _WITH_A_KEY, "engine": service.engine_name}


def brief(error: DemoApiError) -> DemoApiError:
    """An error that has a ``retry_after``, for who has no key: its status and code, and none of its reasons."""
    after = error.fields["retry_after"]
    told = DemoApiError("The server would accept no request now.", next_step=_WITH_A_KEY, retry_after=after)
    told.status_code, told.code = error.status_code, error.code
    return told


_WITH_A_KEY = "With a key this says more."


def _status(found: DemoApiError | None) -> str:
    if found is None:
        return "healthy"
    return "starting" if isinstance(found, Starting) else "unhealthy"
