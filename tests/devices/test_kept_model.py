"""Children that keep their model from batch to batch, through HTTP: what a client sees, and when the model goes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from support.serving import Server
from support.sse import events
from support.waiting import until

from demo_api.config import Settings

Serve = Callable[..., Server]
ChildSettings = Callable[..., Settings]

MAX_TOKENS = 400
"""More than the bytes of an answer."""


@pytest.fixture
def server(serve: Serve, child_settings: ChildSettings) -> Server:
    """A server whose child keeps its model."""
    return serve(child_settings("keeps_model", warm="model"))


def facts(server: Server, prompt: str = "Hello", **fields: object) -> dict[str, object]:
    """What the child found, and how warm it was."""
    body = server.chat(prompt, max_tokens=MAX_TOKENS, **fields).json()
    assert body["success"], body
    found: dict[str, object] = {**json.loads(body["response"]), "warm": body["timing"]["warm"]}
    return found


def noted(server: Server, name: str) -> list[str]:
    path = server.settings.demo_home / name
    return path.read_text().splitlines() if path.exists() else []


def submit(server: Server, *prompts: str) -> list[str]:
    """The runs' ids, of one batch if they are alike."""
    body = {"prompts": prompts, "max_tokens": MAX_TOKENS}
    runs = requests.post(f"{server.url}/runs", json=body, timeout=60).json()["runs"]
    return [run["run_id"] for run in runs]


def record(server: Server, run_id: str) -> dict[str, object]:
    found: dict[str, object] = server.get(f"/runs/{run_id}").json()
    return found


def cancel(server: Server, run_id: str) -> None:
    requests.post(f"{server.url}/runs/{run_id}/cancel", headers={"Sec-Fetch-Site": "none"}, timeout=60)


def wait_for_decode(server: Server, run_id: str) -> None:
    assert any(kind == "progress" for _, kind, _ in events(f"{server.url}/runs/{run_id}/events"))


def test_the_next_batch_finds_the_device_open_and_the_model_loaded(server: Server) -> None:
    first, second, third = (facts(server, prompt) for prompt in ("one", "two", "three"))
    assert first["pid"] == second["pid"] == third["pid"]
    assert [each["model_runs"] for each in (first, second, third)] == [1, 2, 3]
    assert [each["warm"] for each in (second, third)] == ["model", "model"]
    assert noted(server, "loads") == ["1 users, 2048 tokens"]
    assert noted(server, "device") == ["opened"]


def test_nothing_of_a_run_reaches_the_next(server: Server) -> None:
    facts(server, "one")
    found = facts(server, "two")
    assert found["page_table"] is None
    assert found["left_behind"] is None
    assert found["folder"] == str(server.settings.demo_home)


def test_each_run_has_a_log_and_a_report_of_its_own(server: Server) -> None:
    for prompt in ("one", "two"):
        server.chat(prompt, max_tokens=MAX_TOKENS)
    second, first = (server.get(f"/runs/{run['run_id']}").json() for run in server.get("/runs").json()["runs"])
    for run, own, other in ((first, "one", "two"), (second, "two", "one")):
        log = server.get(f"/runs/{run['run_id']}/log").text
        assert f'"prompt": "{own}"' in log
        assert f'"prompt": "{other}"' not in log
        assert log.count("test session starts") == log.count("1 passed, 2 deselected") == 1
    reports = list(server.settings.runs_dir.glob("*/junit.xml"))
    assert len(reports) == 2
    assert all('tests="1"' in report.read_text() for report in reports)


def test_health_tells_what_is_kept(server: Server) -> None:
    facts(server)
    device = server.get("/health").json()["device"]
    assert (device["warm"], device["warm_batches"]) == ("model", 1)
    assert isinstance(device["warm_since"], float)
    assert server.get("/health").json()["model_loaded"] is True


def test_an_answer_comes_token_by_token_and_never_half_a_character(server: Server) -> None:
    body = {"prompt": "Snö, ☃ and 😀", "max_tokens": MAX_TOKENS}
    told = [(kind, data) for _, kind, data in events(f"{server.url}/chat/stream", body=body)]
    texts = [data["added"] for kind, data in told if kind == "text"]
    (done,) = [data for kind, data in told if kind == "done"]
    assert "".join(texts) == done["response"]
    assert "Snö, ☃ and 😀" in done["response"]
    assert not any("\ufffd" in text for text in texts)
    assert not any("best_effort" in data for kind, data in told)


def test_a_prompt_that_does_not_fit_leaves_the_model_as_it_was(server: Server) -> None:
    before = facts(server)
    assert server.chat("too long", max_tokens=MAX_TOKENS).json()["code"] == "demo_failed"
    after = facts(server)
    assert (after["pid"], after["model_runs"]) == (before["pid"], 2)


def test_after_a_failure_while_the_model_worked_it_is_loaded_again(server: Server) -> None:
    before = facts(server)
    assert server.chat("break", max_tokens=MAX_TOKENS).json()["code"] == "demo_failed"
    after = facts(server)
    assert after["pid"] != before["pid"]
    assert noted(server, "device")[:2] == ["opened", "closed"]


def test_a_cancelled_run_leaves_the_model(server: Server) -> None:
    before = facts(server)
    (run_id,) = submit(server, "endless")
    wait_for_decode(server, run_id)
    cancel(server, run_id)
    after = facts(server)
    assert record(server, run_id)["status"] == "cancelled"
    assert (after["pid"], after["warm"]) == (before["pid"], "model")
    assert server.get("/health").json()["device"]["state"] == "free"


def test_a_demo_that_does_not_hear_that_it_is_cancelled_is_stopped(server: Server) -> None:
    before = facts(server)
    (run_id,) = submit(server, "deaf")
    wait_for_decode(server, run_id)
    cancel(server, run_id)
    after = facts(server)
    assert record(server, run_id)["status"] == "cancelled"
    assert after["pid"] != before["pid"]


def test_a_run_that_takes_too_long_leaves_the_model(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("keeps_model", warm="model", run_timeout=60))
    before = facts(server)
    assert server.chat("endless", max_tokens=MAX_TOKENS).json()["code"] == "timed_out"
    assert facts(server)["pid"] == before["pid"]


def test_a_cancelled_run_holds_up_no_other_of_its_batch(server: Server) -> None:
    facts(server)
    endless, _other = runs = submit(server, "endless", "short")
    wait_for_decode(server, endless)
    cancel(server, endless)
    until(lambda: record(server, runs[1])["status"] == "succeeded")
    assert record(server, endless)["status"] == "cancelled"


@pytest.mark.parametrize("changed", ["the demo", "the model's files"])
def test_what_has_changed_is_read_anew(server: Server, changed: str) -> None:
    before = facts(server)
    if changed == "the demo":
        script = next(server.settings.demo_home.glob("models/*/demo/*.py"))
        script.write_text(script.read_text() + "\n")
    else:
        assert server.settings.llama_dir is not None
        (server.settings.llama_dir / "weights").write_text("new")
    after = facts(server)
    assert after["pid"] != before["pid"]
    assert after["model_runs"] == 1


def test_two_kinds_of_batches_that_alternate_load_a_model_once_each(server: Server) -> None:
    # On one device the larger model serves both.
    for prompts in (["one"], ["two", "three", "four"], ["five"], ["six", "seven"]):
        for run_id in submit(server, *prompts):
            until(lambda run_id=run_id: record(server, run_id)["status"] == "succeeded")  # type: ignore[misc]
    assert len(noted(server, "loads")) <= 2


def test_a_child_that_is_killed_while_it_keeps_the_model_costs_time_only(server: Server) -> None:
    before = facts(server)
    psutil.Process(int(str(before["pid"]))).send_signal(signal.SIGKILL)
    after = facts(server)
    assert after["pid"] != before["pid"]


def test_after_a_while_without_a_request_the_device_is_closed(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("keeps_model", warm="model", warm_idle=0.5))
    facts(server)
    until(lambda: noted(server, "device") == ["opened", "closed"])
    until(lambda: server.get("/health").json()["device"]["warm"] == "off")
    assert facts(server)["model_runs"] == 1


def test_a_stopped_server_closes_the_device(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("keeps_model", warm="model"))
    pid = int(str(facts(server)["pid"]))
    server.service.close()
    assert noted(server, "device") == ["opened", "closed"]
    assert not psutil.pid_exists(pid)


def test_runs_are_answered_once_each_whatever_came_before(server: Server) -> None:
    prompts = [f"prompt {number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: facts(server, prompt), prompts))
    assert [each["prompt"] for each in found] == prompts


def test_its_folder_may_vanish(server: Server) -> None:
    facts(server)
    until(lambda: server.get("/health").json()["device"]["warm"] == "model")
    for folder in server.settings.runs_dir.iterdir():
        shutil.rmtree(folder)
    assert server.chat(max_tokens=MAX_TOKENS).status_code in (200, 500)
    assert facts(server)["prompt"] == "Hello"
