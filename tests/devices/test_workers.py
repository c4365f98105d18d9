"""Workers of several hosts and doors without devices, on one PostgreSQL: a lab, as far as the database can tell."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cutting_proxy import CuttingProxy
from support.databases import PostgreSQL, postgresql_server
from support.demo_homes import make_home
from support.lab import Lab, free_port
from support.real_server import SERVE, WORK, RealServer, Site
from support.waiting import until

from demo_api.demo.run_folder import RunFolder


def hangs_at(door: RealServer, lab: Lab, **fields: object) -> str:
    """A run that does not end by itself, the first time; it has started when this returns."""
    run_id = door.submit("hang", **fields)
    until((lab.site.home / "done: hang").exists)
    return run_id


def test_a_door_without_devices_has_its_runs_run_by_a_worker(lab: Lab) -> None:
    door = lab.door()
    lab.worker(devices="left; right")
    until(lambda: door.get("/readyz").status_code == 200)
    answer = door.chat("Hello").json()
    assert (answer["response"], answer["model"]) == ("ok: Hello", "model")
    health = door.get("/health").json()
    assert health["status"] == "healthy"
    assert health["model"] == "model"
    nodes, names = zip(*(device["name"].split("/") for device in health["devices"]), strict=True)
    assert len(set(nodes)) == 1
    assert names == ("left", "right")


def test_any_door_shows_what_the_child_prints(lab: Lab) -> None:
    accepts, other = lab.door(), lab.door()
    lab.worker()
    until(lambda: accepts.get("/readyz").status_code == 200)
    run_id = hangs_at(accepts, lab)
    until(lambda: "Starting decode loop..." in other.get(f"/runs/{run_id}/log").text)  # while it runs
    accepts.post(f"/runs/{run_id}/cancel")
    answer = accepts.chat("Hello").json()
    folders = [RunFolder(path) for path in lab.site.folder.glob("state */runs/*")]
    (whole,) = [log for log in (folder.readable_log() for folder in folders) if "ok: Hello" in log]
    assert answer["output"] == other.get(f"/runs/{answer['run_id']}/log").text == whole


def test_any_door_tells_how_a_run_goes_and_ends_it(lab: Lab) -> None:
    accepts, other = lab.door(), lab.door()
    lab.worker()
    until(lambda: accepts.get("/readyz").status_code == 200)
    run_id = hangs_at(accepts, lab)
    other.wait_for_event(run_id, attempt=1)
    assert other.post(f"/runs/{run_id}/cancel").json()["status"] == "cancelled"
    assert accepts.ending(run_id)["status"] == "cancelled"
    until(lambda: not lab.site.processes())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"prompt": "Hello"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
    ],
    ids=["chat", "openai"],
)
def test_the_model_in_a_request_chooses_the_worker(lab: Lab, path: str, body: dict[str, object]) -> None:
    door = lab.door()
    for model in ("llama", "qwen"):
        lab.worker(model)
    until(lambda: len(door.get("/v1/models").json()["data"]) == 2)
    for model in ("qwen", "llama", "qwen"):
        assert door.post(path, {**body, "model": model}).json()["model"] == model
    unknown = door.post(path, {**body, "model": "gpt-4"})
    assert unknown.status_code == 404
    assert "There is no model 'gpt-4' here, but 'llama' and 'qwen'." in unknown.text


def test_where_there_are_several_models_a_request_must_name_one(lab: Lab) -> None:
    door = lab.door()
    for model in ("llama", "qwen"):
        lab.worker(model)
    until(lambda: len(door.get("/v1/models").json()["data"]) == 2)
    refusal = door.chat("Hello")
    assert (refusal.status_code, refusal.json()["field"]) == (400, "model")
    assert refusal.json()["error"] == "Several models are served here: llama, qwen."


def test_a_line_of_one_model_does_not_fill_that_of_another(lab: Lab) -> None:
    door = lab.door(max_queue=1)
    for model in ("busy", "idle"):
        lab.worker(model)
    until(lambda: len(door.get("/v1/models").json()["data"]) == 2)
    hangs_at(door, lab, model="busy")
    waiting = door.submit("waits", model="busy")
    full = door.post("/runs", {"prompt": "one more", "model": "busy"})
    assert (full.status_code, full.json()["code"]) == (503, "queue_full")
    assert full.json()["error"] == "1 runs are waiting for busy, and 1 may."
    assert door.chat("Hello", model="idle").json()["response"] == "ok: Hello"
    assert door.run(waiting)["position"] == 1


def test_without_a_worker_a_door_says_so(lab: Lab) -> None:
    door = lab.door()
    refusals = [door.get("/readyz"), door.chat("Hello")]
    assert [(refusal.status_code, refusal.json()["code"]) for refusal in refusals] == [(503, "no_worker")] * 2
    assert int(refusals[1].headers["Retry-After"]) > 0
    assert door.get("/health").json()["status"] == "unhealthy"
    worker = lab.worker()
    until(lambda: door.chat("Hello").status_code == 200)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0
    until(lambda: door.chat("Hello").status_code == 503)
    gone = door.chat("Hello", model="model").json()
    assert gone["code"] == "no_worker"
    assert "No worker has had the model 'model' since 20" in gone["error"]


def test_where_it_is_set_so_runs_wait_for_a_model_whose_workers_are_gone(lab: Lab) -> None:
    door = lab.door(accept_without_worker=True)
    assert door.chat("Hello").json()["code"] == "no_worker"  # nobody has ever had a model
    worker = lab.worker()
    until(lambda: door.chat("Hello").status_code == 200)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0
    until(lambda: door.get("/v1/models").json()["data"] == [])
    waiting = [door.submit("Hello"), door.submit("Hello", model="model")]
    assert door.get("/readyz").status_code == 200
    assert door.post("/runs", {"prompt": "Hello", "model": "gpt-4"}).json()["code"] == "model_not_found"
    lab.worker()
    assert [door.ending(run_id)["response"] for run_id in waiting] == ["ok: Hello"] * 2


def test_the_run_of_a_worker_that_is_killed_goes_on_at_another(lab: Lab) -> None:
    door, dead = lab.door(), lab.worker()
    until(lambda: door.get("/readyz").status_code == 200)
    run_id = hangs_at(door, lab)
    lab.worker()
    dead.kill()
    run = door.ending(run_id)
    assert (run["status"], run["response"], run["attempts"]) == ("succeeded", "ok: hang", 2)


def test_the_run_of_a_worker_that_is_suspended_goes_on_at_another_and_is_answered_once(lab: Lab) -> None:
    door, suspended = lab.door(), lab.worker()
    until(lambda: door.get("/readyz").status_code == 200)
    run_id = hangs_at(door, lab)
    (child,) = lab.site.processes()
    lab.worker()
    suspended.process.send_signal(signal.SIGSTOP)
    until(lambda: door.run(run_id)["attempts"] == 2)
    suspended.thaw()
    run = door.ending(run_id)
    assert (run["status"], run["response"], run["attempts"]) == ("succeeded", "ok: hang", 2)
    until(lambda: not child.is_running())


def device_command(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    environ = lab.site.environ | {"DEMO_API_DATABASE_URL": lab.url, "DEMO_API_RESET_TIMEOUT": "30"}
    command = [sys.executable, "-m", "demo_api", "device", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_a_device_of_another_host_is_reset_and_cleared_from_here(lab: Lab) -> None:
    door = lab.door()
    marks = lab.site.folder / "resets"
    lab.worker(reset_command=f"{sys.executable} -c \"open('{marks}', 'a').write('one ')\"")
    until(lambda: door.get("/readyz").status_code == 200)
    name = door.device()["name"]
    done = device_command(lab, "reset", name)
    assert (done.returncode, done.stdout) == (0, f"{name}: free\n"), done.stderr
    assert marks.read_text() == "one "
    assert device_command(lab, "clear", name).stdout == f"{name}: free\n"
    unknown = device_command(lab, "reset", "nowhere/device")
    assert unknown.returncode == 2
    assert unknown.stderr == f"demo-api: There is no device nowhere/device.\nName one of: {name}.\n"


def test_a_device_that_has_failed_on_another_host_is_told_and_cleared(lab: Lab) -> None:
    door = lab.door()
    lab.worker(reset_command="false")
    until(lambda: door.get("/readyz").status_code == 200)
    name = door.device()["name"]
    failed = device_command(lab, "reset", name)
    assert failed.returncode == 1
    assert "is failed: `false` ended with exit code 1" in failed.stderr
    # What came before the door knew waits for the device.
    until(lambda: door.post("/runs", {"prompt": "Hello"}).json().get("code") == "device_failed")
    device_command(lab, "clear", name)
    until(lambda: door.post("/runs", {"prompt": "Hello"}).status_code == 202)
    assert door.chat("Hello").json()["response"] == "ok: Hello"


def test_a_run_outlives_a_restart_of_postgresql_and_is_run_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with postgresql_server() as server, ExitStack() as servers:
        lab = Lab(site, servers, server.url)
        door = lab.door()
        for _ in range(2):
            lab.worker()
        until(lambda: door.get("/readyz").status_code == 200)
        run_id = door.submit("wait for a helper")
        until((site.home / "helper.pid").exists)
        _restart(server)
        until(lambda: door.get("/readyz").status_code == 200)
        helper = int((site.home / "helper.pid").read_text())
        assert door.chat("Hello").json()["response"] == "ok: Hello"
        subprocess.run(["kill", "-9", str(helper)], check=True)
        run = door.ending(run_id)
        assert (run["status"], run["attempts"]) == ("failed", 1)  # as the demo says, when its helper is killed


def test_the_run_of_a_worker_that_is_cut_off_goes_on_at_another_and_is_answered_once(tmp_path: Path) -> None:
    site, port = Site(tmp_path), free_port()
    site.environ["DEMO_API_STOP_GRACE"] = "1"
    proxy = CuttingProxy(f"http://127.0.0.1:{port}")
    with postgresql_server(port=port) as server, ExitStack() as servers:
        servers.callback(proxy.close)
        lab = Lab(site, servers, server.url)
        door = lab.door()
        cut_off = lab.worker(database_url=f"postgresql://postgres@{proxy.url.removeprefix('http://')}/postgres")
        until(lambda: door.get("/readyz").status_code == 200)
        run_id = hangs_at(door, lab)
        (child,) = site.processes()
        proxy.stall()
        until(lambda: not door.get("/health").json()["nodes"])
        lab.worker()
        run = door.ending(run_id)
        assert (run["status"], run["response"], run["attempts"]) == ("succeeded", "ok: hang", 2)
        proxy.mend()
        until(lambda: not child.is_running())
        until(lambda: len(door.get("/health").json()["nodes"]) == 2)
        assert cut_off.process.poll() is None
        assert door.run(run_id) == run


def _restart(server: PostgreSQL) -> None:
    server.stop()
    server.start()


@pytest.mark.parametrize("command", [[*SERVE, "--no-devices"], WORK], ids=["serve without devices", "worker"])
def test_sqlite_is_for_one_host(command: list[str], tmp_path: Path) -> None:
    site = Site(tmp_path)
    ended = subprocess.run(command, env=site.environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "this one is SQLite, which is for one host" in ended.stderr
    assert "DEMO_API_DATABASE_URL" in ended.stderr


def test_a_worker_whose_demo_is_gone_takes_no_runs(lab: Lab) -> None:
    door = lab.door()
    home = make_home(lab.site.folder / "fragile", "obeys_its_prompt")
    broken = lab.worker(demo_home=home)
    until(lambda: door.get("/readyz").status_code == 200)
    home.rename(home.with_name("gone"))
    run_id = door.submit("Hello")
    until(lambda: "There is no models" in broken.log())
    assert door.run(run_id)["status"] == "queued"
    lab.worker()
    assert door.ending(run_id)["response"] == "ok: Hello"
