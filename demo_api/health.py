"""Whether a request would be accepted now, and what ``/health`` says."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError, Starting
from demo_api.service import Service
from demo_api.shapes import Health, ServiceHealth

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


def describe(service: Service) -> Health:
    """The body of ``GET /health``. It says less where the ledger cannot be used."""
    name = service.engine_name
    said: ServiceHealth = {"model": None, "model_loaded": False, "queue": None, "device": None, "devices": []}
    found = problem(service)
    with suppress(SetupError, LedgerUnavailable):
        said = service.describe()
    if found is None:
        return {"status": "healthy", "note": NOTES[name], "engine": name, **said}
    status: Literal["starting", "unhealthy"] = "starting" if isinstance(found, Starting) else "unhealthy"
    return {"status": status, "note": f"{found} {found.next_step}", "engine": name, **said}
