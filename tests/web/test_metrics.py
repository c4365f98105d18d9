"""``/metrics`` as Prometheus reads it: of one server, of four processes, and through restarts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.doc_pages import PAGES, ROOT, code_words, table
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.real_server import GUNICORN, RealServer, Site, locked
from support.serving import Server
from support.waiting import at_once, until

from demo_api.config import Settings
from demo_api.direct import DirectEngine
from demo_api.errors import RUN_CODES
from demo_api.web.counters import Counters
from demo_api.web.metrics import OUTCOMES, PHASES

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
ALERTS = ROOT / "docs" / "alerts.yml"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    answer = requests.get(f"{url}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples: Samples = {}
    for family in parse_text(answer.text):
        for sample in family.samples:
            place = sample.name, frozenset(sample.labels.items())
            assert place not in samples, place
            samples[place] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def runs(samples: Samples) -> dict[str, float]:
    """How many runs have ended, by their outcomes; without zeros."""
    return {dict(labels)["outcome"]: number for (name, labels), number in samples.items()
            if name == "demo_api_runs_total" and number}  # fmt: skip


@pytest.fixture
def engine(settings: Callable[..., Settings]) -> EchoRunner:
    return EchoRunner()


@pytest.fixture
def server(serve: Callable[..., Server], settings: Callable[..., Settings], engine: EchoRunner) -> Server:
    return serve(settings(max_batch=1), engine)


def test_everything_is_there_from_the_start(server: Server) -> None:
    samples = scrape(server.url)
    assert set(RUN_CODES) < set(OUTCOMES)
    for outcome in OUTCOMES:
        assert value(samples, "demo_api_runs_total", outcome=outcome) == 0
    for phase in PHASES:
        assert value(samples, "demo_api_run_phase_seconds_count", phase=phase) == 0
        assert value(samples, "demo_api_run_phase_seconds_bucket", phase=phase, le="+Inf") == 0
    assert value(samples, "demo_api_tokens_generated_total") == 0
    assert value(samples, "demo_api_run_wait_seconds_count") == 0
    assert value(samples, "demo_api_queue_limit") == server.settings.max_queue
    assert value(samples, "demo_api_warm_children") == 0
    assert value(samples, "demo_api_ready") == 1
    assert value(samples, "demo_api_info", engine="demo", version="0.1.0") == 1


def test_what_happens_is_counted(server: Server, engine: EchoRunner) -> None:
    for prompt, status in (("one", 200), ("two", 200), ("fail", 500), ("unplug", 503), ("break", 507)):
        assert server.chat(prompt).status_code == status
    engine.let_go.clear()
    running, waiting = (
        requests.post(f"{server.url}/runs", json={"prompt": prompt}, timeout=60).json()["run_id"] for prompt in "ab"
    )
    until(lambda: server.get(f"/runs/{running}").json()["status"] == "running")
    samples = scrape(server.url)
    assert value(samples, "demo_api_queue_waiting") == value(samples, "demo_api_queue_running") == 1
    assert value(samples, "demo_api_device_state", device="device", state="busy") == 1
    assert value(samples, "demo_api_device_state", device="device", state="free") == 0
    assert requests.post(f"{server.url}/runs/{waiting}/cancel", timeout=60).status_code == 200
    engine.let_go.set()
    until(lambda: server.get(f"/runs/{running}").json()["status"] == "succeeded")
    wanted = {"succeeded": 3, "demo_failed": 1, "not_set_up": 1, "storage_full": 1, "cancelled": 1}
    until(lambda: runs(scrape(server.url)) == wanted)
    samples = scrape(server.url)
    assert value(samples, "demo_api_tokens_generated_total") == 3
    assert value(samples, "demo_api_run_wait_seconds_count") == 6  # one was cancelled before it began
    assert value(samples, "demo_api_run_seconds_count") == 7
    assert value(samples, "demo_api_run_seconds_sum") > 0
    route = {"method": "POST", "route": "/chat"}
    assert value(samples, "demo_api_http_requests_total", **route, status="200") == 2
    assert value(samples, "demo_api_http_requests_total", **route, status="503") == 1


def test_paths_and_methods_that_clients_invent_are_one_series(server: Server) -> None:
    for number in range(3):
        requests.request(f"BREW{number}", f"{server.url}/pot-{number}", timeout=60)
        server.get(f"/runs/none-{number}")
    samples = scrape(server.url)
    assert value(samples, "demo_api_http_requests_total", method="other", route="none", status="404") == 3
    assert value(samples, "demo_api_http_requests_total", method="GET", route="/runs/<run_id>", status="404") == 3


def test_phases_tokens_and_held_children_of_the_real_demo(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    server = serve(settings(llama_dir=model_dir))
    answer = server.chat("What is 2+2?", max_tokens=8, temperature=0).json()
    until(lambda: value(scrape(server.url), "demo_api_warm_children") == 1)
    samples = scrape(server.url)
    assert value(samples, "demo_api_tokens_generated_total") == answer["tokens_generated"]
    for phase in PHASES:
        assert value(samples, "demo_api_run_phase_seconds_count", phase=phase) == 1
        told = answer["timing"][f"{phase}_seconds"]
        assert value(samples, "demo_api_run_phase_seconds_sum", phase=phase) == pytest.approx(told)


def test_the_direct_engine_counts_in_memory(serve: Callable[..., Server], settings: Callable[..., Settings]) -> None:
    server = serve(settings(engine="direct"), DirectEngine(EchoModel(), settings()))
    until(lambda: server.get("/readyz").status_code == 200)
    assert server.chat("one two three").status_code == 200
    assert server.chat("break").status_code == 500
    until(lambda: runs(scrape(server.url)) == {"succeeded": 1, "internal_error": 1})
    samples = scrape(server.url)
    assert value(samples, "demo_api_tokens_generated_total") == 3
    assert value(samples, "demo_api_device_state", device="CPU", state="free") == 1
    assert not (server.settings.state_dir / "metrics.db").exists()


def test_a_program_that_asks_for_openmetrics_gets_it(server: Server) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = requests.get(f"{server.url}/metrics", headers=headers, timeout=60)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert "demo_api_runs" in {family.name for family in parse_openmetrics(answer.text)}


def test_prometheus_own_checker_has_nothing_to_say(server: Server) -> None:
    server.chat("one")
    text = server.get("/metrics").text
    done = subprocess.run([_promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _promtool() -> str:
    # Debian's package of it is the whole of Prometheus, so it is used where it happens to be.
    return shutil.which("promtool") or pytest.skip("there is no promtool on this machine")


# Several processes


def test_four_processes_tell_the_same_and_what_one_has_counted_outlives_it(tmp_path: Path) -> None:
    site, command = Site(tmp_path), [*GUNICORN, "--workers", "4", "--threads", "4"]
    with site.serving(command, max_batch=1) as server:
        master, asked = psutil.Process(server.process.pid), 0
        until(lambda: len(master.children()) == 4)
        workers = {str(worker.pid): worker for worker in master.children()}
        while pids(scrape(server.url)) != set(workers):  # until every one of them has answered something
            asked += ask_at_once(server)
        route = {"method": "GET", "route": "/livez", "status": "200"}
        for _ in range(12):  # whichever of them answers
            assert value(scrape(server.url), "demo_api_http_requests_total", **route) == asked
        assert {server.chat(f"{number}").status_code for number in range(2)} == {200}
        until(lambda: runs(scrape(server.url)) == {"succeeded": 2})
        pid, worker = workers.popitem()
        worker.kill()
        until(lambda: not worker.is_running())
        after = scrape(server.url)
        assert value(after, "demo_api_http_requests_total", **route) == asked
        assert runs(after) == {"succeeded": 2}
        assert pid not in pids(after)
    with site.serving() as server:
        assert runs(scrape(server.url)) == {"succeeded": 2}
        assert value(scrape(server.url), "demo_api_http_requests_total", **route) == asked
    assert (site.state / "metrics.db").stat().st_mode & 0o777 == 0o600


def pids(samples: Samples) -> set[str]:
    return {dict(labels)["pid"] for name, labels in samples if name == "demo_api_process_threads"}


def ask_at_once(server: RealServer) -> int:
    """Sends requests, and returns how many."""

    def ask() -> None:
        with requests.Session() as session:  # a connection each, so that they spread
            for _ in range(10):
                assert session.get(f"{server.url}/livez", timeout=30, headers={"Connection": "close"}).ok

    at_once([ask] * 8)
    return 80


def test_a_file_that_somebody_else_holds_delays_no_request_and_loses_nothing(server: Server) -> None:
    server.get("/livez")
    with locked(server.settings.state_dir / "metrics.db"):
        assert {server.get("/livez").status_code for _ in range(5)} == {200}
        answer = server.get("/metrics")
        assert (answer.status_code, answer.json()["code"]) == (503, "metrics_unavailable")
    samples = scrape(server.url)
    assert value(samples, "demo_api_http_requests_total", method="GET", route="/livez", status="200") == 6


def test_a_damaged_file_is_told_and_everything_else_goes_on(
    serve: Callable[..., Server], settings: Callable[..., Settings], engine: EchoRunner
) -> None:
    settings().state_dir.mkdir(parents=True, exist_ok=True)
    file = settings().state_dir / "metrics.db"
    file.write_bytes(b"this is no database " * 100)
    server = serve(settings(), engine)
    assert server.chat("one").status_code == 200
    error = server.get("/metrics").json()
    assert error["code"] == "metrics_unavailable"
    assert "metrics.db" in error["next_step"]
    assert file.read_bytes().startswith(b"this is no database")


def test_numbers_are_added_up_across_processes(tmp_path: Path) -> None:
    first, second = Counters(tmp_path / "metrics.db"), Counters(tmp_path / "metrics.db")
    at_once(
        [
            lambda counters=each: [counters.add({("a", "b"): 1, ("c",): 0.5}) for _ in range(200)]
            for each in (first, second)
        ]
        * 2
    )  # type: ignore[misc]
    assert first.read() == second.read() == {("a", "b"): 800, ("c",): 400}


# What is written about them


def _families(text: str) -> dict[str, str]:
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in parse_text(text)}


def test_every_metric_is_documented_with_its_kind(server: Server) -> None:
    rows = dict(re.findall(r"^\| `(demo_api_\w+)(?:\{[^}]*\})?` \| (\w+) \|", PAGES["metrics.md"], re.MULTILINE))
    assert rows == _families(server.get("/metrics").text)


def _names(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bdemo_api_\w+", text)}


def _expressions() -> dict[str, str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    found = {f"panel {panel['title']}": target["expr"] for panel in panels for target in panel.get("targets", ())}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    return found


@pytest.mark.parametrize("expression", _expressions().values(), ids=_expressions())
def test_what_the_dashboard_and_the_alerts_ask_for_is_there(server: Server, expression: str) -> None:
    assert _names(expression) - set(_families(server.get("/metrics").text)) == set()
    assert _names(expression)
    for label, words in re.findall(r'(outcome|state|phase)[=!]~?"([^"]*)"', expression):
        known = {"outcome": OUTCOMES, "state": ("free", "busy", "suspect", "resetting", "failed"), "phase": PHASES}
        assert set(words.split("|")) <= set(known[label])


def _alerts() -> list[str]:
    return [name.removeprefix("alert ") for name in _expressions() if name.startswith("alert ")]


def test_every_alert_is_documented_in_its_order() -> None:
    assert [code_words(row["alert"])[0] for row in table("monitoring.md", "alert", "when", "what helps")] == _alerts()


def test_prometheus_accepts_the_alerts() -> None:
    done = subprocess.run([_promtool(), "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(_alerts())} rules found" in done.stdout
