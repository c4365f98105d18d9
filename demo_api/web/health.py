"""Whether a request would be accepted now, and what ``/health`` says."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from demo_api.bodies import BriefHealth, Health
from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError, Starting
from demo_api.messages import EngineHealth
from demo_api.web.engine import Engine

NOTES = {
    "demo": "Every request runs the demo as a child process that loads the model anew: expect seconds on the CPU "
    "edition, 45 seconds to 5 minutes on a Tenstorrent device. Requests that wait together go to one child if they are "
    "alike.",
    "direct": "The model stays in memory: expect milliseconds to seconds.",
}
"""What to expect of each engine."""


def problem(engine: Engine) -> DemoApiError | None:
    """Why no request would be accepted now, a full line excepted; None if one would be."""
    try:
        engine.check()
    except DemoApiError as error:
        return error
    return None


def describe(engine: Engine) -> Health:
    """The body of ``GET /health``. It says less where the ledger cannot be used."""
    name = engine.engine_name
    said: EngineHealth = {"model": None, "model_loaded": False, "queue": None, "device": None, "devices": []}
    found = problem(engine)
    with suppress(SetupError, LedgerUnavailable):
        said = engine.describe()
    note = NOTES[name] if found is None else f"{found} {found.next_step}"
    return {"status": _status(found), "note": note, "engine": name, **said}


def describe_briefly(engine: Engine) -> BriefHealth:
    """The body of ``GET /health`` for who has no key: no model, no path, nothing of what others do here."""
    return {"status": _status(problem(engine)), "note": _WITH_A_KEY, "engine": engine.engine_name}


def brief(error: DemoApiError) -> DemoApiError:
    """An error that has a ``retry_after``, for who has no key: its status and code, and none of its reasons."""
    after = error.fields["retry_after"]
    told = DemoApiError("The server would accept no request now.", next_step=_WITH_A_KEY, retry_after=after)
    told.status_code, told.code = error.status_code, error.code
    return told


_WITH_A_KEY = "With a key this says more."


def _status(found: DemoApiError | None) -> Literal["healthy", "starting", "unhealthy"]:
    if found is None:
        return "healthy"
    return "starting" if isinstance(found, Starting) else "unhealthy"
