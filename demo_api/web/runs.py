"""``/runs`` and what is below it: runs that outlive their client and the server, on the demo engine."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, request

from demo_api import bodies
from demo_api.bodies import Accepted, RunPage, RunRecord
from demo_api.config import Settings
from demo_api.errors import BadRequest, IdempotencyConflict, NoLog, NoSuchRun, RunEnded
from demo_api.messages import STATUSES, Request, Requests
from demo_api.queue.door import Door
from demo_api.web import event_stream
from demo_api.web.chat import event_response
from demo_api.web.event_stream import EVENTS, Events
from demo_api.web.openapi import examples, refusals
from demo_api.web.openapi.operation import JSON, STREAM, TEXT, Content, Operation
from demo_api.web.openapi.refusals import ACCEPTED, BODY, LEDGER, WAITING
from demo_api.web.openapi.schemas import JsonObject
from demo_api.web.parse import parse_requests
from demo_api.web.request import (
    AFTER,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    WaitSlots,
    client_is_gone,
    idempotency_key,
    json_body,
    last_event_id,
)
from demo_api.web.request_log import note_run

_RUN_ID: JsonObject = {
    "name": "run_id",
    "in": "path",
    "description": "The run's id.",
    "required": True,
    "schema": {"type": "string"},
}
_STATUS: JsonObject = {
    "name": "status",
    "in": "query",
    "description": "Only runs of this status; repeat it for several.",
    "schema": {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}},
    "example": ["succeeded", "failed"],
}
_BEFORE: JsonObject = {
    "name": "before",
    "in": "query",
    "description": "Only runs that were accepted before this one.",
    "schema": {"type": "string"},
}
_LIMIT: JsonObject = {
    "name": "limit",
    "in": "query",
    "description": "How many.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    "example": 10,
}
_PARAMETERS = f"The parameters are status ({', '.join(STATUSES)}; repeat it for several), before (a run_id) and limit."

_FIND = (*refusals.of(NoSuchRun), *LEDGER)
"""What looking for a run may raise."""

_EXAMPLE = examples.succeeded("demo")
_SUCCEEDED = bodies.record(_EXAMPLE, "demo")


def add_runs(app: Flask, door: Door, settings: Settings, slots: WaitSlots) -> None:
    """Adds the routes."""
    history = door.ledger.history

    @app.post("/runs")
    @Operation(
        "runs",
        "Accept runs",
        "Accepts one `prompt`, or 1 to 32 `prompts`: all of them or none. It does not wait for them: follow the "
        "events, or look at the run again.",
        body=Content(Request | Requests, examples.BATCH_BODY),
        answers={
            JSON: Content(Accepted, bodies.accepted([examples.QUEUED, examples.QUEUED_NEXT], "demo", examples.ESTIMATE))
        },
        parameters=(IDEMPOTENCY_KEY,),
        refusals=(*BODY, *ACCEPTED["demo"], *refusals.of(IdempotencyConflict)),
        status=202,
        links=("get_run", "get_run_events", "get_run_log", "cancel_run"),
    )
    def create_runs() -> Response:
        runs = door.submit(parse_requests(json_body()), idempotency_key())
        note_run(runs[0].run_id, runs[0].request.prompt)
        response = jsonify(bodies.accepted(runs, door.engine_name, door.estimate(runs[0])))
        response.status_code = 202
        response.headers["Location"] = f"/runs/{runs[0].run_id}"
        return response

    @app.get("/runs")
    @Operation(
        "runs",
        "List runs",
        "The newest first. `next` is the path of the following page.",
        answers={
            JSON: Content(RunPage, {"runs": [_SUCCEEDED], "next": f"/runs?before={examples.RUN_ID}&limit=1"}),
        },
        parameters=(_STATUS, _BEFORE, _LIMIT),
        refusals=(*refusals.of(BadRequest), *LEDGER),
    )
    def list_runs() -> Response:
        statuses, before, limit = _page()
        runs = history.page(statuses=statuses, before=before, limit=limit + 1)
        following = None
        if len(runs) > limit:
            query = [("status", status) for status in statuses] + [("before", runs[limit - 1].run_id), ("limit", limit)]
            following = f"/runs?{urlencode(query)}"
        records = [bodies.record(run, door.engine_name) for run in runs[:limit]]
        body: RunPage = {"runs": records, "next": following}
        return jsonify(body)

    @app.get("/runs/<run_id>")
    @Operation(
        "runs",
        "Show a run",
        "Whatever its status.",
        answers={JSON: Content(RunRecord, _SUCCEEDED)},
        parameters=(_RUN_ID,),
        refusals=_FIND,
    )
    def get_run(run_id: str) -> Response:
        return jsonify(bodies.record(history.get(run_id), door.engine_name))

    @app.get("/runs/<run_id>/events")
    @Operation(
        "runs",
        "Follow a run",
        "What happens in it, live and after the fact, from the first event or from the one after `Last-Event-ID`. "
        "The last event is `done`. A comment is sent every 15 seconds when nothing else is.",
        answers={STREAM: Content(EVENTS, examples.stream("demo", Events(_EXAMPLE.run_id, lambda: _EXAMPLE)))},
        parameters=(_RUN_ID, LAST_EVENT_ID, AFTER),
        refusals=(*refusals.of(BadRequest), *_FIND, *WAITING),
    )
    def get_run_events(run_id: str) -> Response:
        after, is_gone = last_event_id(), client_is_gone(settings)
        history.get(run_id)
        slots.take()
        follow, leave = partial(door.follow, run_id, after), partial(door.leave, run_id)
        encoder = Events(run_id, partial(history.get, run_id))
        body = event_stream.stream(encoder, follow, is_gone=is_gone, on_leave=leave)
        return event_response(body, slots.leave)

    @app.get("/runs/<run_id>/log")
    @Operation(
        "runs",
        "Show a run's log",
        "All that its child has printed so far; while it runs and after.",
        answers={TEXT: Content(str, examples.LOG)},
        parameters=(_RUN_ID,),
        refusals=(*_FIND, *refusals.of(NoLog)),
    )
    def get_run_log(run_id: str) -> Response:
        return Response(door.logs.of(history.get(run_id)), mimetype="text/plain")

    @app.post("/runs/<run_id>/cancel")
    @Operation(
        "runs",
        "Cancel a run",
        "One that waits or runs. Cancelling twice is the same as once.",
        answers={JSON: Content(RunRecord, bodies.record(examples.CANCELLED, "demo"))},
        parameters=(_RUN_ID,),
        refusals=(*_FIND, *refusals.of(RunEnded)),
    )
    def cancel_run(run_id: str) -> Response:
        note_run(run_id)
        return jsonify(bodies.record(door.cancel(run_id), door.engine_name))


def _page() -> tuple[list[str], str | None, int]:
    """The query of ``GET /runs``, checked."""
    for name in request.args:
        if name not in ("status", "before", "limit"):
            raise BadRequest(f"The parameter '{name[:100]}' is not known.", next_step=_PARAMETERS, field=name[:100])
    statuses = request.args.getlist("status")
    for status in statuses:
        if status not in STATUSES:
            raise BadRequest(f"The status '{status[:100]}' is not known.", next_step=_PARAMETERS, field="status")
    limit = request.args.get("limit", "50")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= 200:
        raise BadRequest("The parameter 'limit' is wrong: it is 1 to 200.", next_step=_PARAMETERS, field="limit")
    return statuses, request.args.get("before"), int(limit)
