"""``/metrics``, the figures for Prometheus, and what counts them."""

from __future__ import annotations

from flask import Flask, Response, request

from demo_api.config import Settings
from demo_api.errors import MetricsUnavailable
from demo_api.queue.door import Door
from demo_api.web.engine import Engine
from demo_api.web.metrics import Metrics
from demo_api.web.openapi import refusals
from demo_api.web.openapi.operation import TEXT, Content, Operation
from demo_api.web.tallies import Tallies

_EXAMPLE = """\
# HELP demo_api_runs_total Runs that have ended, by how.
# TYPE demo_api_runs_total counter
demo_api_runs_total{outcome="succeeded"} 1.0
demo_api_runs_total{outcome="skipped"} 0.0
..."""


def add_metrics(app: Flask, engine: Engine, settings: Settings) -> None:
    """Counts the runs that end and the requests that are answered, and adds ``/metrics``."""
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
    @Operation(
        "server",
        "Figures for Prometheus",
        "As text, or as OpenMetrics; docs/metrics.md has each.",
        answers={TEXT: Content(str, _EXAMPLE)},
        refusals=refusals.of(MetricsUnavailable),
    )
    def get_metrics() -> Response:
        text, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)
