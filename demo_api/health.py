"""Whether a run would be accepted now, and what ``/health`` says."""

from __future__ import annotations

from demo_api.device import STATES
from demo_api.dispatcher import Dispatcher
from demo_api.engine import Engine
from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError

DEMO_NOTE = (
    "Every request runs the demo as a child process that loads the model anew: expect seconds on the CPU edition, "
    "45 seconds to 5 minutes on a Tenstorrent device. Requests that wait together go to one child if they are alike."
)


def problem(dispatcher: Dispatcher, engine: Engine) -> DemoApiError | None:
    """Why no run would be accepted now, a full line excepted; None if one would be."""
    try:
        engine.check()
        dispatcher.check()
    except DemoApiError as error:
        return error
    return None


def describe(dispatcher: Dispatcher, engine: Engine) -> dict[str, object]:
    """The body of ``GET /health``. It says less where the ledger cannot be used."""
    body: dict[str, object] = {"status": "healthy", "note": DEMO_NOTE, "engine": engine.name}
    found = problem(dispatcher, engine)
    if found is not None:
        body.update(status="unhealthy", note=f"{found} {found.next_step}")
    try:
        body.update(engine.describe())
    except SetupError:
        body.update(model=None, model_loaded=False)
    try:
        # The device that is the best off stands for all of them.
        devices = dispatcher.devices()
        device = min(devices, key=lambda each: STATES.index(str(each["state"])))
        body.update(queue=dispatcher.ledger.line.describe(), device=device, devices=devices)
    except LedgerUnavailable:
        body.update(queue=None, device=None, devices=None)
    return body
