"""``/metrics``, for Prometheus."""

from __future__ import annotations

from flask import Flask, Response, request

from demo_api.config import Settings
from demo_api.dispatcher import Dispatcher
from demo_api.metrics import Metrics
from demo_api.service import Service
from demo_api.tallies import Tallies


def add_metrics(app: Flask, service: Service, settings: Settings) -> None:
    """From now on runs that end and requests that are answered are counted, and ``/metrics`` tells."""
    # The direct engine is one process, writes nothing down, and may have the demo engine's state folder.
    shared = isinstance(service, Dispatcher)
    metrics = Metrics(Tallies(settings.state_dir / "metrics.db" if shared else None), service)
    service.listen(metrics.run_ended)

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        metrics.request_answered(request.method, route, response.status_code)
        return response

    @app.get("/metrics")
    def expose() -> Response:
        text, content_type = metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)
