"""The routes of runs, which outlive their client and the server: the demo engine has them."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, request

from demo_api import bodies
from demo_api.bodies import RunPage
from demo_api.errors import BadRequest
from demo_api.messages import STATUSES
from demo_api.queue.door import Door
from demo_api.web import event_stream
from demo_api.web.chat import event_response
from demo_api.web.event_stream import Events
from demo_api.web.parse import parse_requests
from demo_api.web.request import WaitSlots, idempotency_key, json_body, last_event_id
from demo_api.web.request_log import note_run

_PARAMETERS = f"The parameters are status ({', '.join(STATUSES)}; repeat it for several), before (a run_id) and limit."


def add_runs(app: Flask, door: Door, slots: WaitSlots) -> None:
    """``/runs`` and what is below it."""
    history = door.ledger.history

    @app.post("/runs")
    def submit() -> Response:
        runs = door.submit(parse_requests(json_body()), idempotency_key())
        note_run(runs[0].run_id, runs[0].request.prompt)
        response = jsonify(bodies.accepted(runs, door.engine_name))
        response.status_code = 202
        response.headers["Location"] = f"/runs/{runs[0].run_id}"
        return response

    @app.get("/runs")
    def page() -> Response:
        statuses, before, limit = _page()
        runs = history.page(statuses=statuses, before=before, limit=limit + 1)
        following = None
        if len(runs) > limit:
            query = [("status", status) for status in statuses] + [("before", runs[limit - 1].run_id), ("limit", limit)]
            following = f"/runs?{urlencode(query)}"
        records = [bodies.record(run, door.engine_name) for run in runs[:limit]]
        told: RunPage = {"runs": records, "next": following}
        return jsonify(told)

    @app.get("/runs/<run_id>")
    def show(run_id: str) -> Response:
        return jsonify(bodies.record(history.get(run_id), door.engine_name))

    @app.get("/runs/<run_id>/log")
    def log(run_id: str) -> Response:
        return Response(door.log(history.get(run_id)), mimetype="text/plain")

    @app.post("/runs/<run_id>/cancel")
    def cancel(run_id: str) -> Response:
        note_run(run_id)
        return jsonify(bodies.record(door.cancel(run_id), door.engine_name))

    @app.get("/runs/<run_id>/events")
    def events(run_id: str) -> Response:
        after = last_event_id()
        history.get(run_id)
        slots.take()
        follow, leave = partial(door.follow, run_id, after), partial(door.leave, run_id)
        return event_response(
            event_stream.stream(Events(run_id, partial(history.get, run_id)), follow, leave), slots.leave
        )


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
