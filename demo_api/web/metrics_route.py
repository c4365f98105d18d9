"""``/metrics``, for Prometheus."""

from __future__ import annotations

from flask import Flask, Response, request

from demo_api.config import Settings
from demo_api.queue.door import Door
from demo_api.web.engine import Engine
from demo_api.web.metrics import Metrics
from demo_api.web.tallies import Tallies


def add_metrics(app: Flask, engine: Engine, settings: Settings) -> None:
    """From now on runs that end and requests that are answered are counted, and ``/metrics`` tells."""
    # The direct engine is one process, writes nothing down, and may have the demo engine's state folder.
    shared = isinstance(engine, Door)
    metrics = Metrics(Tallies(settings.state_dir / "metrics.db" if shared else None), engine)
    engine.listen(metrics.run_ended)

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        metrics.request_answered(request.method, route, response.status_code)
        return response

    @app.get("/metrics")
    def expose() -> Response:
        text, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)
