"""What ``/metrics`` says, and where it comes from: tallies of what has happened, and the engine for what is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from demo_api import messages
from demo_api.errors import RUN_CODES, DemoApiError
from demo_api.messages import DEVICE_STATES, Run, Timing
from demo_api.web import health
from demo_api.web.engine import Engine
from demo_api.web.tallies import Key, Tallies

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, float("inf"))
"""Upper bounds of the histograms' buckets, in seconds: from the CPU edition to a line of slow runs."""

_LE = tuple("+Inf" if bound == float("inf") else str(float(bound)) for bound in BOUNDS)

OUTCOMES = ("succeeded", *RUN_CODES, "not_set_up", "storage_full", "bad_request", "shutting_down")
"""How runs can end; all are there from the start, at zero, so that an alert sees the first one."""

PHASES = (*messages.PHASES[:-1], "teardown")
"""The parts of a run that its timing knows: of the last one, it is the teardown that takes time."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_RUNS, _TOKENS, _HTTP = "demo_api_runs", "demo_api_tokens_generated", "demo_api_http_requests"
_WAIT, _RUN, _PHASE = "demo_api_run_wait_seconds", "demo_api_run_seconds", "demo_api_run_phase_seconds"


class Metrics:
    """The metrics of one server. All methods may be called from any thread."""

    def __init__(self, tallies: Tallies, engine: Engine) -> None:
        self._tallies = tallies
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(tallies, engine))

    def run_ended(self, run: Run) -> None:
        """Counts a run that this process has brought to its end."""
        result = run.result
        failure = result.failure if result else None
        succeeded = result is not None and result.answer is not None and failure is None
        amounts: dict[Key, float] = {(_RUNS, "succeeded" if succeeded else failure.code if failure else "no_answer"): 1}
        _observe(amounts, _WAIT, (), run.waited_seconds)
        _observe(amounts, _RUN, (), run.time_seconds)
        timing = dataclasses.asdict(result.timing if result else Timing())
        for phase in PHASES:
            _observe(amounts, _PHASE, (phase,), timing[f"{phase}_seconds"])
        if result and result.answer and result.answer.tokens_generated:
            amounts[_TOKENS,] = result.answer.tokens_generated
        self._tallies.add(amounts)

    def request_answered(self, method: str, route: str, status: int) -> None:
        """Counts an answer.

        Args:
            route: as the application has it, such as ``/runs/<run_id>``: paths would be without number.
        """
        self._tallies.add({(_HTTP, method if method in _METHODS else "other", route, str(status)): 1})

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its content type.

        Args:
            accept: the header of whoever asks.

        Raises:
            MetricsUnavailable: what was counted cannot be read now.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _observe(amounts: dict[Key, float], name: str, labels: Key, seconds: float | None) -> None:
    if seconds is not None:
        bound = next(text for bound, text in zip(BOUNDS, _LE, strict=True) if seconds <= bound)
        for part, amount in ((bound, 1.0), ("sum", max(0.0, seconds))):
            key = (name, *labels, part)
            amounts[key] = amount


class _Collector(Collector):
    def __init__(self, tallies: Tallies, engine: Engine) -> None:
        self._tallies = tallies
        self._service = engine

    def collect(self) -> Iterator[Metric]:
        tallied = self._tallies.read()
        yield from _runs(tallied)
        http = CounterMetricFamily(_HTTP, "HTTP requests that were answered.", labels=("method", "route", "status"))
        for key, value in sorted(tallied.items()):
            if key[0] == _HTTP:
                http.add_metric(key[1:], value)
        yield http
        yield from _service(self._service)
        yield from _processes(self._tallies.processes())


def _runs(tallied: Mapping[Key, float]) -> Iterator[Metric]:
    runs = CounterMetricFamily(_RUNS, "Runs that have ended, by how.", labels=("outcome",))
    unforeseen = sorted({key[1] for key in tallied if key[0] == _RUNS} - set(OUTCOMES))
    for outcome in (*OUTCOMES, *unforeseen):
        runs.add_metric((outcome,), tallied.get((_RUNS, outcome), 0.0))
    yield runs
    yield CounterMetricFamily(_TOKENS, "Tokens of the answers.", value=tallied.get((_TOKENS,), 0.0))
    yield _histogram(tallied, _WAIT, "From a run's acceptance until it was begun.", (), [()])
    yield _histogram(tallied, _RUN, "From a run's acceptance to its end.", (), [()])
    yield _histogram(tallied, _PHASE, "What a run spent in each phase.", ("phase",), [(phase,) for phase in PHASES])


def _histogram(
    tallied: Mapping[Key, float], name: str, text: str, labels: Key, series: Iterable[Key]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values in series:
        total, buckets = 0.0, []
        for bound in _LE:
            total += tallied.get((name, *values, bound), 0.0)
            buckets.append((bound, total))
        family.add_metric(values, buckets, tallied.get((name, *values, "sum"), 0.0))
    return family


def _service(engine: Engine) -> Iterator[Metric]:
    info = GaugeMetricFamily("demo_api_info", "1, with what serves.", labels=("engine", "version"))
    info.add_metric((engine.engine_name, version("demo-api")), 1)
    yield info
    ready = health.problem(engine) is None
    yield GaugeMetricFamily("demo_api_ready", "Whether a run would be accepted, a full line excepted.", value=ready)
    try:
        told = engine.describe()
    except DemoApiError:
        return  # what is not known is left out
    if told["queue"] is not None:
        yield GaugeMetricFamily("demo_api_queue_waiting", "Runs that wait.", value=told["queue"]["waiting"])
        yield GaugeMetricFamily("demo_api_queue_running", "Runs that are under way.", value=told["queue"]["running"])
        yield GaugeMetricFamily("demo_api_queue_limit", "How many runs may wait.", value=told["queue"]["limit"])
    states = GaugeMetricFamily("demo_api_device_state", "1 for the state it is in.", labels=("device", "state"))
    for device in told["devices"]:
        for state in DEVICE_STATES:
            states.add_metric((str(device["name"]), state), float(device["state"] == state))
    yield states
    warm = sum(device["warm"] != "off" for device in told["devices"])
    yield GaugeMetricFamily("demo_api_warm_children", "Children that wait for a batch.", value=warm)


def _processes(processes: Iterable[psutil.Process]) -> Iterator[Metric]:
    cpu = CounterMetricFamily("demo_api_process_cpu_seconds", "Processor time of a server process.", labels=("pid",))
    gauges = {
        name: GaugeMetricFamily(f"demo_api_process_{name}", text, labels=("pid",))
        for name, text in (
            ("resident_memory_bytes", "Memory of a server process."),
            ("open_fds", "Files and sockets that it has open."),
            ("threads", "Its threads."),
            ("start_time_seconds", "When it began, in Unix seconds."),
        )
    }
    for process in processes:
        pid = (str(process.pid),)
        try:
            with process.oneshot():
                times = process.cpu_times()
                figures = (
                    process.memory_info().rss, process.num_fds(), process.num_threads(), process.create_time()
                )  # fmt: skip
        except psutil.Error:
            continue  # it has just ended, or is not ours to look at
        cpu.add_metric(pid, times.user + times.system)
        for gauge, figure in zip(gauges.values(), figures, strict=True):
            gauge.add_metric(pid, figure)
    yield cpu
    yield from gauges.values()
