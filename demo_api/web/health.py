"""``/health``, ``/livez`` and ``/readyz``: how the server is, and whether it would accept a request now."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from flask import Flask, Response, g, jsonify

from demo_api.bodies import BriefHealth, Health, Status
from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError, Starting
from demo_api.messages.health import DeviceHealth, EngineHealth, Queue
from demo_api.web.engine import Engine
from demo_api.web.openapi.examples import ESTIMATE, MODEL
from demo_api.web.openapi.operation import JSON, Content, Operation
from demo_api.web.openapi.refusals import READY

NOTES = {
    "demo": "Every request runs the demo in a child process. Where that has to load the model (see `warm`), expect "
    "seconds on the CPU edition, 45 seconds to 5 minutes on a Tenstorrent device. Requests that wait together go to "
    "one child if they are alike.",
    "direct": "The model stays in memory: expect milliseconds to seconds.",
}
"""What to expect of each engine."""

_WITH_A_KEY = "With a key this says more."
_OLDEST_SECONDS = 0.1
"""How old an answer of ``/health`` may be: however many look, the ledger is read so often at most."""

_RETRY_SECONDS = 10


def add_health(app: Flask, engine: Engine) -> None:
    """Adds the routes. They answer at once, whatever runs."""
    everything, brief = Recent(lambda: _describe(engine)), Recent(lambda: _describe_briefly(engine))

    @app.get("/health")
    @Operation(
        "server",
        "How the server is",
        "Answers at once, whatever is running: the model, the queue and the device.",
        answers={JSON: Content(Health | BriefHealth, _example(engine.engine_name))},
    )
    def get_health() -> Response:
        return Response((everything if g.knows_all else brief).json(), mimetype="application/json")

    @app.get("/livez")
    @Operation(
        "server",
        "Whether the server lives",
        "For a supervisor.",
        answers={JSON: Content(Status, {"status": "alive"})},
    )
    def get_livez() -> Response:
        return jsonify({"status": "alive"})

    @app.get("/readyz")
    @Operation(
        "server",
        "Whether a run would be accepted",
        "For a load balancer. A full queue is still ready.",
        answers={JSON: Content(Status, {"status": "ready"})},
        refusals=READY[engine.engine_name],
    )
    def get_readyz() -> Response:
        error = problem(engine)
        if error is None:
            return jsonify({"status": "ready"})
        retry_after = error.fields.setdefault("retry_after", _RETRY_SECONDS)
        if g.knows_all:
            raise error
        raise type(error)("The server would accept no request now.", next_step=_WITH_A_KEY, retry_after=retry_after)


class Recent:
    """JSON that is made anew when it is older than ``_OLDEST_SECONDS``, by one of those who ask for it then."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made_at = -math.inf
        self._json = b""

    def json(self) -> bytes:
        """The text, within a request."""
        with self._lock:
            if time.monotonic() - self._made_at > _OLDEST_SECONDS:
                self._json = jsonify(self._make()).get_data()
                self._made_at = time.monotonic()
            return self._json


def problem(engine: Engine) -> DemoApiError | None:
    """Why no request would be accepted now, a full queue excepted; None if one would be."""
    try:
        engine.check()
    except DemoApiError as error:
        return error
    return None


def _describe(engine: Engine) -> Health:
    """Everything, or less where the ledger cannot be used."""
    name = engine.engine_name
    said: EngineHealth = {
        "model": None,
        "model_loaded": False,
        "queue": None,
        "device": None,
        "devices": [],
        "estimate": None,
        "nodes": [],
        "pools": [],
    }
    error = problem(engine)
    with suppress(SetupError, LedgerUnavailable):
        said = engine.describe()
    note = NOTES[name] if error is None else f"{error} {error.next_step}"
    return {"status": _status(error), "note": note, "engine": name, **said}


def _describe_briefly(engine: Engine) -> BriefHealth:
    """What a client without a key may know: no model, no path, nothing of what others do here."""
    return {"status": _status(problem(engine)), "note": _WITH_A_KEY, "engine": engine.engine_name}


def _status(error: DemoApiError | None) -> Literal["healthy", "starting", "unhealthy"]:
    if error is None:
        return "healthy"
    return "starting" if isinstance(error, Starting) else "unhealthy"


def _example(engine: str) -> Health:
    is_demo = engine == "demo"
    queue: Queue = {"waiting": 0, "running": 0, "limit": 32}
    if not is_demo:
        queue["slots"] = 8
    device: DeviceHealth = {
        "name": "device" if is_demo else "CPU",
        "state": "free",
        "reason": None,
        "since": None,
        "warm": "model" if is_demo else "off",
        "warm_since": 1795594910.0 if is_demo else None,
        "warm_batches": 7 if is_demo else None,
    }
    health: Health = {
        "status": "healthy",
        "note": NOTES[engine],
        "engine": engine,
        "model": MODEL,
        "model_loaded": not is_demo,
        "llama_dir": "/home/me/.cache/demo-api/models/SmolLM2-135M-Instruct",
        "settings": {"max_seq_len": 2048, "paged_attention": False, "temperature": 0.7 if is_demo else 0.0},
        "queue": queue,
        "device": device,
        "devices": [device],
        "estimate": ESTIMATE,
        "nodes": [],
        "pools": [],
    }
    if not is_demo:
        health["losses"], health["latest_loss"] = 0, None
    return health
