"""``demo-api status``, ``/health`` and ``/metrics`` of a lab: who is there, and what waits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from support.lab import Enlist, Lab, device
from support.waiting import until

from demo_api.cli import main
from demo_api.config import Settings
from demo_api.messages import Request
from demo_api.queue import Ledger

STATUS = [sys.executable, "-m", "demo_api", "status"]


def status(lab: Lab, *words: str) -> str:
    environ = lab.site.environ | {"DEMO_API_DATABASE_URL": lab.url}
    ended = subprocess.run([*STATUS, *words], env=environ, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout


def test_status_health_and_metrics_show_every_node_device_and_model(lab: Lab) -> None:
    door = lab.door()
    lab.worker("llama", devices="left; right")
    lab.worker("qwen", devices="only")
    until(lambda: len(door.get("/v1/models").json()["data"]) == 2)
    door.submit("hang", model="qwen")
    until((lab.site.home / "done: hang").exists)
    door.submit("waits", model="qwen")
    until(lambda: '"busy"' in status(lab, "--json"))
    shown = json.loads(status(lab, "--json"))
    assert [(node["model"], len(node["devices"])) for node in shown["nodes"]] in (
        [("llama", 2), ("qwen", 1)],
        [("qwen", 1), ("llama", 2)],
    )
    assert shown["pools"] == [
        {"model": "llama", "workers": 1, "devices": 2, "waiting": 0, "running": 0},
        {"model": "qwen", "workers": 1, "devices": 1, "waiting": 1, "running": 1},
    ]
    health = door.get("/health").json()
    assert (health["nodes"], health["pools"]) == (shown["nodes"], shown["pools"])
    text = status(lab)
    assert re.search(r"llama +\S+ +0:\d\d:\d\d +left +free +off *\n +right +free +off *\n", text)
    assert re.search(r"qwen +1 +1 +1 +1 *\n", text)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(door.get("/metrics").text)
        for sample in family.samples
    }
    (node,) = [node["node"] for node in shown["nodes"] if node["model"] == "qwen"]
    assert samples[("demo_api_lab_devices", *sorted(("busy", node, "qwen")))] == 1
    assert samples["demo_api_pool_workers", "llama"] == 1
    assert samples["demo_api_pool_waiting", "qwen"] == 1
    assert samples["demo_api_pool_running", "qwen"] == 1


def test_a_worker_counts_what_it_ran_and_answers_on_a_port_of_its_own(lab: Lab) -> None:
    door, worker = lab.door(), lab.worker(metrics_port=0)
    until(lambda: door.get("/readyz").status_code == 200)
    assert door.chat("Hello").status_code == 200
    until(lambda: "Health and metrics on" in worker.log())
    (worker.url,) = re.findall(r"Health and metrics on (http://127\.0\.0\.1:\d+)", worker.log())
    until(lambda: 'demo_api_runs_total{outcome="succeeded"} 1.0' in worker.get("/metrics").text)
    assert worker.get("/livez").json() == {"status": "alive"}
    assert worker.get("/health").json()["model"] == "model"
    assert worker.get("/readyz").status_code == 200
    assert worker.post("/chat", {"prompt": "Hello"}).status_code == 404
    worker.process.terminate()
    assert worker.process.wait(60) == 0


def test_status_says_what_to_start_where_nobody_is_connected(lab: Lab) -> None:
    assert status(lab).startswith("No worker is connected. Start `demo-api worker`")
    assert json.loads(status(lab, "--json")) == {"nodes": [], "pools": []}


def test_no_name_is_cut_where_programs_read(
    settings: Callable[..., Settings], postgresql_schema: str, enlist: Enlist
) -> None:
    ledger = Ledger(settings(database_url=postgresql_schema))
    model, reason = f"organisation/{'long-' * 20}name", "A child was killed, because it did not end." * 4
    enlist(ledger, model, device("left"), device("right", "suspect", reason))
    ledger.close()
    words = ["status", "--database-url", postgresql_schema, "--state-dir", str(settings().state_dir)]
    header, first, second, *_ = CliRunner().invoke(main, words).stdout.splitlines()
    assert header.split() == ["node", "model", "version", "up", "device", "state", "warm", "reason"]
    node = ledger.workers.node
    assert re.fullmatch(rf"{node} +{model} +0\.1\.0 +0:00:\d\d +left +free +off *", first)
    assert re.fullmatch(rf" +right +suspect +off +{re.escape(reason)} *", second)


def test_of_sqlite_this_hosts_devices_and_its_queue_are_shown(settings: Callable[..., Settings]) -> None:
    ledger = Ledger(settings())
    ledger.devices.set("idle", "suspect", "A child was killed.")
    ledger.queue.submit([Request.model_validate({"prompt": prompt}) for prompt in "abc"])
    assert ledger.queue.claim("works", lambda runs: list(runs[:1]))
    ledger.close()
    words = ["status", "--state-dir", str(settings().state_dir), "--devices", "works; idle"]
    text = CliRunner().invoke(main, words).stdout
    assert [line.rstrip().split(maxsplit=2) for line in text.splitlines()] == [
        ["device", "state", "reason"],
        ["works", "busy"],
        ["idle", "suspect", "A child was killed."],
        [],
        ["1", "running,", "2 waiting"],
    ]
    shown = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert shown["queue"] == {"waiting": 2, "running": 1}
    assert [(each["name"], each["state"], each["reason"]) for each in shown["devices"]] == [
        ("works", "busy", None),
        ("idle", "suspect", "A child was killed."),
    ]


WRONG = {
    "unknown database": (["--database-url", "mysql://db/x"], 3, "it is neither sqlite nor postgresql"),
    "nobody answers": (["--database-url", "postgresql://u:p@127.0.0.1:1/x"], 3, "cannot be opened"),
    "unknown flag": (["--port", "1"], 2, "No such option"),
}


@pytest.mark.parametrize(("words", "exit_code", "sentence"), WRONG.values(), ids=WRONG)
def test_status_that_cannot_be_given_says_why(
    settings: Callable[..., Settings], words: list[str], exit_code: int, sentence: str
) -> None:
    done = CliRunner().invoke(main, ["status", "--state-dir", str(settings().state_dir), *words])
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert sentence in done.stderr
