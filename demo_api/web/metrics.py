"""``/metrics``, for Prometheus: counters of what has happened, and what the engine is doing now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate

import psutil
from flask import Flask, Response, request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from demo_api import messages
from demo_api.config import Settings
from demo_api.errors import RUN_CODES, DemoApiError, MetricsUnavailable
from demo_api.messages import Run
from demo_api.messages.health import DEVICE_STATES, EngineHealth
from demo_api.queue.door import Door
from demo_api.web import health
from demo_api.web.counters import Counters, Key
from demo_api.web.engine import Engine
from demo_api.web.openapi import refusals
from demo_api.web.openapi.operation import TEXT, Content, Operation

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the histograms' buckets, in seconds: from the CPU edition to a line of slow runs."""

_BUCKETS = (*map(str, BOUNDS), "+Inf")

OUTCOMES = ("succeeded", *RUN_CODES, "not_set_up", "storage_full", "bad_request", "shutting_down")
"""How runs can end; all are there from the start, at zero, so that an alert sees the first one."""

PHASES = (*messages.PHASES[:-1], "teardown")
"""The parts of a run that its timing has: it knows the teardown instead of the output."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_RUNS, _TOKENS, _HTTP = "demo_api_runs", "demo_api_tokens_generated", "demo_api_http_requests"
_WAIT, _RUN, _PHASE = "demo_api_run_wait_seconds", "demo_api_run_seconds", "demo_api_run_phase_seconds"

_EXAMPLE = """\
# HELP demo_api_runs_total Runs that have ended, by how.
# TYPE demo_api_runs_total counter
demo_api_runs_total{outcome="succeeded"} 1.0
demo_api_runs_total{outcome="skipped"} 0.0
..."""


def add_metrics(app: Flask, engine: Engine, settings: Settings) -> Callable[[Run], None]:
    """Counts the requests that are answered, and adds the route.

    Returns:
        what counts a run that has ended.
    """
    # The direct engine is one process, writes nothing down, and may have the demo engine's state folder.
    counters = Counters(settings.state_dir / "metrics.db" if isinstance(engine, Door) else None)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(counters, engine))

    @app.after_request
    def count(response: Response) -> Response:
        method = request.method if request.method in _METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"  # not the path: there is no end of those
        counters.add({(_HTTP, method, route, str(response.status_code)): 1})
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
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    return lambda run: counters.add(_amounts_of_run(run))


def _amounts_of_run(run: Run) -> dict[Key, float]:
    """What a run adds to the counters when it has ended."""
    if run.result is None:
        return {}  # a run that has ended has a result
    answer, failure, timing = run.result.answer, run.result.failure, run.result.timing
    amounts: dict[Key, float] = {(_RUNS, failure.code if failure else "succeeded"): 1}
    if answer and answer.tokens_generated:
        amounts[_TOKENS,] = answer.tokens_generated
    amounts |= _observed((_WAIT,), run.waited_seconds) | _observed((_RUN,), run.time_seconds)
    for phase in PHASES:
        amounts |= _observed((_PHASE, phase), getattr(timing, f"{phase}_seconds"))
    return amounts


def _observed(series: Key, seconds: float | None) -> dict[Key, float]:
    """What adds a duration to a histogram: the buckets are cumulated when they are read."""
    if seconds is None:
        return {}
    bucket = next((str(bound) for bound in BOUNDS if seconds <= bound), "+Inf")
    return {(*series, bucket): 1, (*series, "sum"): max(0.0, seconds)}


class _Metrics(Collector):
    def __init__(self, counters: Counters, engine: Engine) -> None:
        self._counters = counters
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """All metrics.

        Raises:
            MetricsUnavailable: what was counted cannot be read now.
        """
        counted = self._counters.read()
        yield from _counted_runs(counted)
        yield _counted_requests(counted)
        yield from _of_engine(self._engine)
        yield from _of_processes(self._counters.processes())


def _counted_runs(counted: Mapping[Key, float]) -> Iterator[Metric]:
    runs = CounterMetricFamily(_RUNS, "Runs that have ended, by how.", labels=("outcome",))
    unforeseen = sorted({key[1] for key in counted if key[0] == _RUNS} - set(OUTCOMES))
    for outcome in (*OUTCOMES, *unforeseen):
        runs.add_metric((outcome,), counted.get((_RUNS, outcome), 0.0))
    yield runs
    yield CounterMetricFamily(_TOKENS, "Tokens of the answers.", value=counted.get((_TOKENS,), 0.0))
    yield _histogram(counted, _WAIT, "From a run's acceptance until it was begun.")
    yield _histogram(counted, _RUN, "From a run's acceptance to its end.")
    yield _histogram(counted, _PHASE, "What a run spent in each phase.", ("phase",), [(phase,) for phase in PHASES])


def _histogram(
    counted: Mapping[Key, float], name: str, text: str, labels: Key = (), series: Iterable[Key] = ((),)
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values in series:
        totals = accumulate(counted.get((name, *values, bucket), 0.0) for bucket in _BUCKETS)
        buckets = list(zip(_BUCKETS, totals, strict=True))
        family.add_metric(values, buckets, counted.get((name, *values, "sum"), 0.0))
    return family


def _counted_requests(counted: Mapping[Key, float]) -> Metric:
    http = CounterMetricFamily(_HTTP, "HTTP requests that were answered.", labels=("method", "route", "status"))
    for key, value in sorted(counted.items()):
        if key[0] == _HTTP:
            http.add_metric(key[1:], value)
    return http


def _of_engine(engine: Engine) -> Iterator[Metric]:
    info = GaugeMetricFamily("demo_api_info", "1, with what serves.", labels=("engine", "version"))
    info.add_metric((engine.engine_name, version("demo-api")), 1)
    yield info
    ready = health.problem(engine) is None
    yield GaugeMetricFamily("demo_api_ready", "Whether a run would be accepted, a full line excepted.", value=ready)
    try:
        now = engine.describe()
    except DemoApiError:
        return  # what is not known is left out
    if now["queue"] is not None:
        yield GaugeMetricFamily("demo_api_queue_waiting", "Runs that wait.", value=now["queue"]["waiting"])
        yield GaugeMetricFamily("demo_api_queue_running", "Runs that are under way.", value=now["queue"]["running"])
        yield GaugeMetricFamily("demo_api_queue_limit", "How many runs may wait.", value=now["queue"]["limit"])
    states = GaugeMetricFamily("demo_api_device_state", "1 for the state it is in.", labels=("device", "state"))
    for device in now["devices"]:
        for state in DEVICE_STATES:
            states.add_metric((str(device["name"]), state), float(device["state"] == state))
    yield states
    warm = sum(device["warm"] != "off" for device in now["devices"])
    yield GaugeMetricFamily("demo_api_warm_children", "Children that wait, or keep their model.", value=warm)
    kept = sum(device["warm"] == "model" for device in now["devices"])
    yield GaugeMetricFamily("demo_api_kept_models", "Devices whose child keeps the model loaded.", value=kept)
    answered = GaugeMetricFamily("demo_api_warm_child_batches", "Batches it has answered.", labels=("device",))
    for device in now["devices"]:
        if device["warm_batches"] is not None:
            answered.add_metric((str(device["name"]),), device["warm_batches"])
    yield answered
    yield from _of_lab(now)


def _of_lab(now: EngineHealth) -> Iterator[Metric]:
    """Of all hosts that share the ledger; every server of theirs says the same."""
    devices = GaugeMetricFamily(
        "demo_api_lab_devices", "Devices of the workers that live.", labels=("node", "model", "state")
    )
    # Servers that share a node share its devices, so each counts once.
    states = {
        (node["node"], node["model"], device["name"]): device["state"]
        for node in now["nodes"]
        for device in node["devices"]
    }
    counted = Counter((node, model, state) for (node, model, _), state in states.items())
    for labels, number in sorted(counted.items()):
        devices.add_metric(labels, number)
    yield devices
    live = GaugeMetricFamily("demo_api_pool_workers", "Workers that live, by model.", labels=("model",))
    waiting = GaugeMetricFamily("demo_api_pool_waiting", "Runs that wait, by model.", labels=("model",))
    running = GaugeMetricFamily("demo_api_pool_running", "Runs that are under way, by model.", labels=("model",))
    for pool in now["pools"]:
        model = (pool["model"] or "",)  # of runs that any may take; a name could be another's
        live.add_metric(model, pool["workers"])
        waiting.add_metric(model, pool["waiting"])
        running.add_metric(model, pool["running"])
    yield from (live, waiting, running)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


_PROCESS_METRICS: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[..., float]], ...] = (
    (CounterMetricFamily, "cpu_seconds", "Processor time of a server process.", _cpu_seconds),
    (GaugeMetricFamily, "resident_memory_bytes", "Memory of a server process.", lambda it: it.memory_info().rss),
    (GaugeMetricFamily, "open_fds", "Files and sockets that it has open.", psutil.Process.num_fds),
    (GaugeMetricFamily, "threads", "Its threads.", psutil.Process.num_threads),
    (GaugeMetricFamily, "start_time_seconds", "When it began, in Unix seconds.", psutil.Process.create_time),
)


def _of_processes(processes: Iterable[psutil.Process]) -> Iterator[Metric]:
    for family, name, text, figure in _PROCESS_METRICS:
        metric = family(f"demo_api_process_{name}", text, labels=("pid",))
        for process in processes:
            try:
                metric.add_metric((str(process.pid),), figure(process))
            except psutil.Error:
                continue  # it has just ended, or is not ours to look at
        yield metric
