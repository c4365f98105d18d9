"""Children that are started ahead and held, through HTTP: what a client sees of them, and what is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Signal

import psutil
import pytest
import requests
from support.demo_homes import CHILDREN, SCRIPT
from support.real_server import Site
from support.serving import Server
from support.sse import events
from support.waiting import pause, until

from demo_api import runner
from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import devices_of
from demo_api.process.tree import survivors

Serve = Callable[..., Server]
ChildSettings = Callable[..., Settings]


def folder_of_waiting(state_dir: Path) -> Path | None:
    """The folder of the child that has collected the tests and waits, if there is one."""
    name = state_dir / "device.waiting"
    folder = state_dir / "runs" / name.read_text() if name.exists() else None
    log = folder / "stderr.txt" if folder else None
    return folder if log and log.exists() and '"message": "waiting"' in log.read_text() else None


def wait_for_child(state_dir: Path) -> psutil.Process:
    """The child, when it waits."""
    until(lambda: folder_of_waiting(state_dir) is not None)
    folder = folder_of_waiting(state_dir)
    assert folder is not None
    (process,) = survivors("DEMO_API_RUN", {folder.name})
    return process


def waiting_process(server: Server) -> psutil.Process:
    """The child that gets ready, or waits."""
    batch_id = devices_of(server.settings)[0].waiting()
    assert batch_id is not None
    until(lambda: survivors("DEMO_API_RUN", {batch_id}) != [])
    return survivors("DEMO_API_RUN", {batch_id})[0]


def is_warm(server: Server) -> bool:
    return bool(server.get("/health").json()["device"]["warm"] == "imports")


def answer(response: requests.Response) -> dict[str, object]:
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    return body


def timing(response: requests.Response) -> dict[str, object]:
    found = answer(response)["timing"]
    assert isinstance(found, dict)
    return found


def test_a_waiting_child_answers_and_the_next_one_is_started(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("passes", warm="imports"))
    first = wait_for_child(server.settings.state_dir)
    assert is_warm(server)
    assert server.get("/health").json()["device"]["state"] == "free"
    told = timing(server.chat())
    assert told["warm"] == "imports"
    startup, ahead = told["startup_seconds"], told["startup_ahead_seconds"]
    assert isinstance(startup, float)
    assert isinstance(ahead, float)
    assert startup < ahead
    assert wait_for_child(server.settings.state_dir) != first
    assert not first.is_running()
    assert timing(server.chat("again"))["warm"] == "imports"


def test_the_demo_sees_the_same_around_itself_as_in_a_child_that_was_not_held(
    serve: Serve, child_settings: ChildSettings
) -> None:
    cold_settings = child_settings("shows_environment")
    held_settings = cold_settings.model_copy(
        update={"warm": "imports", "state_dir": cold_settings.state_dir.with_name("warm")}
    )
    facts = []
    for settings in (cold_settings, held_settings):
        server = serve(settings)
        if settings.warm_level != "off":
            wait_for_child(settings.state_dir)
        response = server.chat("caf\u00e9 \u2603", max_tokens=64, temperature=0.3, top_p=0.5)
        facts.append(json.loads(str(answer(response)["response"])))
    for seen in facts:
        seen["open_fds"] = len(seen["open_fds"])
        seen["sigint"] = seen["sigint"].split()[1]
        del seen["argv"]  # the options are compared as the demo reads them
        del seen["environ"]["DEMO_API_CHILD"], seen["environ"]["DEMO_API_RUN"], seen["environ"]["PYTEST_CURRENT_TEST"]
    cold, held = facts
    assert held.pop("open_fds") == cold.pop("open_fds") + 1, "what the server tells it comes on a descriptor of its own"
    assert held == cold
    assert cold["options"] == {"max_seq_len": 2048, "max_generated_tokens": 63, "batch_size": 1, "instruct": 1}
    assert cold["sampling_params"]["temperature"] == 0.3
    assert cold["stdin"] == ""


def test_a_batch_goes_to_a_waiting_child(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("passes", warm="imports"))
    wait_for_child(server.settings.state_dir)
    body = {"prompts": ["one", "two", "three"]}
    runs = requests.post(f"{server.url}/runs", json=body, timeout=60).json()["runs"]
    records = []
    for run in runs:
        until(lambda run=run: server.get(f"/runs/{run['run_id']}").json()["status"] == "succeeded")  # type: ignore[misc]
        records.append(server.get(f"/runs/{run['run_id']}").json())
    assert [record["response"] for record in records] == ["ok: one", "ok: two", "ok: three"]
    assert {record["timing"]["warm"] for record in records} == {"imports"}


CHANGES = {
    "the_demo": SCRIPT,
    "what_it_imports": Path("demo_lines.py"),
    "conftest": Path("conftest.py"),
    "pytest_ini": Path("pytest.ini"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_child_that_was_started_with_files_that_changed_since_is_not_used(
    serve: Serve, child_settings: ChildSettings, changed: str
) -> None:
    server = serve(child_settings("passes", warm="imports"))
    child = wait_for_child(server.settings.state_dir)
    path = server.settings.demo_home / CHANGES[changed]
    if changed == "the_demo":
        path.write_text(path.read_text().replace("ok: ", "new: "))
    else:
        path.write_text(path.read_text() + "\n")
    body = answer(server.chat())
    assert body["response"] == ("new: Hello" if changed == "the_demo" else "ok: Hello")
    assert body["timing"]["warm"] == "off"  # type: ignore[index]
    assert not child.is_running()
    assert is_warm(server) or wait_for_child(server.settings.state_dir)
    assert timing(server.chat())["warm"] == "imports"


def test_a_file_that_changed_while_the_child_started_counts_as_changed(tmp_path: Path) -> None:
    # The child cannot know whether it was read before or after that.
    home, folder = tmp_path / "home", tmp_path / "run"
    late = "import os, pathlib\npathlib.Path(__file__).touch()\n\ndef test_a():\n    pass\n"
    home.mkdir()
    (home / "test_late.py").write_text(late)
    ended, log = _send(home, folder, b'{"options": {}}\n')
    assert "collected" not in log
    assert ended == 0


def test_a_module_that_is_loaded_at_its_first_use_is_not_loaded_by_the_look_at_its_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "lazy.py").write_text("raise RuntimeError('nobody used it')\n")
    lines = """
import importlib.util, sys

def make():
    spec = importlib.util.find_spec("lazy")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["lazy"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

make()

def test_a():
    open("ran", "w").close()
"""
    (home / "test_it.py").write_text(lines)
    ended, log = _send(home, tmp_path / "run", b'{"options": {}}\n')
    assert (ended, (home / "ran").exists()) == (0, True), log


@pytest.mark.parametrize("line", [b"", b'{"options": '], ids=["end_of_input", "half_a_line"])
def test_at_the_end_of_input_a_child_leaves_at_once_and_runs_nothing(tmp_path: Path, line: bytes) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "test_it.py").write_text("def test_a():\n    open('ran', 'w').close()\n")
    ended, log = _send(home, tmp_path / "run", line)
    assert (ended, (home / "ran").exists()) == (0, False)
    assert '"message": "waiting"' in log
    assert "collected" not in log


def _send(home: Path, folder: Path, line: bytes) -> tuple[int, str]:
    """Starts pytest with the plugin in a held child, tells it a line, and returns its exit code and log."""
    folder.mkdir(mode=0o700)
    run = RunFolder(folder)
    run.write_plugin_config({"parent_pid": os.getpid(), "waits": True})
    plugin = Path(sys.modules["demo_api"].__path__[0]) / "demo/plugin"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-p", "demo_api_child"],
        cwd=home,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(plugin), "DEMO_API_CHILD": str(run.plugin_config)},
        input=line,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.decode()


def test_a_run_of_a_server_with_another_model_is_told_to_the_child_that_waits_with_its_own(
    serve: Serve, child_settings: ChildSettings, tmp_path: Path
) -> None:
    holding = serve(child_settings("shows_environment", warm="imports"))
    wait_for_child(holding.settings.state_dir)
    other = tmp_path / "another-model"
    other.mkdir()
    asking = serve(holding.settings.model_copy(update={"warm": "off", "llama_dir": other}))
    body = answer(asking.chat())
    assert json.loads(str(body["response"]))["environ"]["LLAMA_DIR"] == str(holding.settings.llama_dir)
    assert body["timing"]["warm"] == "imports"  # type: ignore[index]


def test_a_run_accepted_by_another_server_is_told_to_the_child_that_waits(
    serve: Serve, child_settings: ChildSettings
) -> None:
    holding = serve(child_settings("passes", warm="imports"))
    wait_for_child(holding.settings.state_dir)
    asking = serve(holding.settings.model_copy(update={"warm": "off"}))
    assert asking.get("/health").json()["device"]["state"] == "free"
    assert timing(asking.chat())["warm"] == "imports"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_child_that_dies_while_it_waits_costs_time_only(
    serve: Serve, child_settings: ChildSettings, number: signal.Signals
) -> None:
    server = serve(child_settings("passes", warm="imports"))
    child = wait_for_child(server.settings.state_dir)
    child.send_signal(number)
    told = timing(server.chat())  # the server may have seen it, or not
    assert told["warm"] in ("imports", "off")
    assert not child.is_running()
    until(lambda: server.get("/health").json()["device"]["state"] == "free")
    assert server.leftovers() == []


def test_a_child_that_was_killed_while_it_waited_leaves_the_device_in_doubt(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("passes", warm="imports"))
    wait_for_child(server.settings.state_dir).kill()
    until(lambda: server.get("/health").json()["device"]["state"] == "suspect")
    assert server.get("/health").json()["device"]["warm"] == "off"
    assert timing(server.chat())["warm"] == "off"
    wait_for_child(server.settings.state_dir)
    assert is_warm(server)


def test_a_run_that_waits_for_a_child_that_hangs_is_run_cold(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("hangs_at_collection_if_warm", warm="imports", run_timeout=4))
    until(lambda: is_warm(server))
    body = answer(server.chat())
    assert body["response"] == "ok: Hello"
    assert body["timing"]["warm"] == "off"  # type: ignore[index]
    assert answer(server.chat("again"))["response"] == "ok: again"
    assert server.leftovers() == []


@pytest.mark.parametrize("demo", ["passes", "hangs_at_collection_if_warm"], ids=["ready", "not ready"])
def test_a_suspended_child_is_given_no_run(serve: Serve, child_settings: ChildSettings, demo: str) -> None:
    server = serve(child_settings(demo, warm="imports"))
    until(lambda: is_warm(server))
    child = wait_for_child(server.settings.state_dir) if demo == "passes" else waiting_process(server)
    child.suspend()
    assert answer(server.chat())["response"] == "ok: Hello"
    assert not child.is_running()
    run_id = server.get("/runs").json()["runs"][0]["run_id"]
    assert [kind for _, kind, _ in events(f"{server.url}/runs/{run_id}/events")].count("started") == 1


def test_a_child_that_hangs_is_not_waited_for_much_longer_than_others_took_to_start(
    serve: Serve, child_settings: ChildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_START_SECONDS", 0.5)
    server = serve(child_settings("hangs_at_collection_if_warm", warm="imports", run_timeout=900))
    until(lambda: is_warm(server))
    waiting_process(server).suspend()
    server.chat("it tells how long a start takes")
    until(lambda: is_warm(server))
    assert answer(server.chat())["response"] == "ok: Hello"  # otherwise it takes 450 s


def test_a_child_that_hangs_while_nobody_asks_is_ended(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("hangs_at_collection_if_warm", warm="imports", run_timeout=1))
    until(lambda: is_warm(server))
    until(lambda: not is_warm(server) and server.batches() == [])


def test_a_damaged_note_of_the_child_that_waits_costs_time_only(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("passes", warm="imports"))
    child = wait_for_child(server.settings.state_dir)
    (server.settings.state_dir / "device.waiting").write_bytes(b"\xbe\0\xff")
    assert answer(server.chat())["response"] == "ok: Hello"
    assert not child.is_running()


def test_children_that_cannot_be_held_are_not_started_again_and_again(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("exits_at_collection_if_warm", warm="imports"))
    for prompt in ("one", "two", "three"):
        assert answer(server.chat(prompt))["response"] == f"ok: {prompt}"
    assert (server.settings.demo_home / "attempts").read_text() == "warm\nwarm\n"


def test_children_that_do_not_go_on_waiting_are_not_started_again_and_again(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("leaves_while_it_waits", warm="imports"))
    pause(7)
    assert (server.settings.demo_home / "attempts").read_text() == "warm\nwarm\n"


def test_a_child_that_was_ready_and_does_not_begin_is_not_waited_for_as_if_it_were_starting(
    serve: Serve, child_settings: ChildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_START_SECONDS", 1.0)
    server = serve(child_settings("never_gets_its_batch_if_warm", warm="imports", run_timeout=600))
    wait_for_child(server.settings.state_dir)
    assert timing(server.chat())["warm"] == "off"  # otherwise after 300 s


def test_a_child_that_begins_when_it_is_given_up_is_not_the_run_s_affair(
    serve: Serve, child_settings: ChildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "3")
    monkeypatch.setattr(runner, "_START_SECONDS", 1.0)
    server = serve(child_settings("deaf_if_warm", warm="imports", run_timeout=4, stop_grace=10))
    until((server.settings.demo_home / "deaf").exists)
    assert answer(server.chat())["response"] == "ok: Hello"


def test_a_run_that_could_not_be_told_leaves_the_doubt_about_its_child(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("deaf_if_warm", warm="imports", stop_grace=0.5))
    until((server.settings.demo_home / "deaf").exists)
    (folder,) = server.settings.runs_dir.iterdir()
    shutil.rmtree(folder)
    assert server.chat().json()["code"] == "internal_error"
    assert server.get("/health").json()["device"]["state"] == "suspect"


def test_a_device_that_falls_into_doubt_while_a_child_waits_is_reset(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("passes", warm="imports", reset_command="true"))
    child = wait_for_child(server.settings.state_dir)
    server.service.ledger.devices.suspect("device", "A server that was suspended told it late.")  # type: ignore[union-attr]
    until(lambda: server.get("/health").json()["device"]["state"] == "free")
    assert not child.is_running()
    wait_for_child(server.settings.state_dir)


def test_after_a_while_without_a_request_the_child_is_let_go(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("passes", warm="imports", warm_idle=3))  # long enough for a busy machine to see it
    until(lambda: is_warm(server))
    until(lambda: not is_warm(server) and server.batches() == [])
    devices_of(server.settings)[0].wait_for_lock(seconds=1, given_up=Signal()).__exit__(None, None, None)
    assert answer(server.chat())["response"] == "ok: Hello"


def test_a_cancelled_run_does_not_wait_for_the_child_to_get_ready(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("hangs_at_collection_if_warm", warm="imports", run_timeout=600))
    until(lambda: is_warm(server))
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()["run_id"]
    until(lambda: server.get(f"/runs/{run_id}").json()["status"] == "running")
    requests.post(f"{server.url}/runs/{run_id}/cancel", timeout=60)
    until(lambda: server.leftovers() == [])
    assert server.get(f"/runs/{run_id}").json()["status"] == "cancelled"


def test_a_run_in_a_held_child_can_be_cancelled(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("hangs", warm="imports"))
    wait_for_child(server.settings.state_dir)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.chat)
        until(lambda: server.get("/health").json()["device"]["state"] == "busy")
        run_id = server.get("/runs").json()["runs"][0]["run_id"]
        requests.post(f"{server.url}/runs/{run_id}/cancel", timeout=60)
        assert waiting.result().json()["code"] == "cancelled"
    until(lambda: server.leftovers() == [])


def test_who_needs_the_device_without_a_server_gets_it(
    serve: Serve, child_settings: ChildSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(child_settings("passes", warm="imports"))
    child = wait_for_child(server.settings.state_dir)
    settings = server.settings
    command = [sys.executable, "-m", "demo_api", "run", "Hello", "--state-dir", str(settings.state_dir)]
    flags = ["--demo-home", str(settings.demo_home), "--llama-dir", str(settings.llama_dir), "--run-timeout", "60"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok: Hello\n"), done.stderr
    assert not child.is_running()
    assert answer(server.chat())["response"] == "ok: Hello"


def test_who_waits_for_a_run_to_end_is_not_kept_from_the_device_by_the_next_child(
    serve: Serve, child_settings: ChildSettings
) -> None:
    server = serve(child_settings("hangs", warm="imports"))
    wait_for_child(server.settings.state_dir)
    settings = server.settings
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()["run_id"]
    until(lambda: server.get("/health").json()["device"]["state"] == "busy")
    command = [sys.executable, "-m", "demo_api", "run", "Hello", "--state-dir", str(settings.state_dir)]
    flags = ["--demo-home", str(settings.demo_home), "--llama-dir", str(settings.llama_dir), "--run-timeout", "20"]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        pause(3)  # it waits by now
        shutil.copyfile(CHILDREN / "passes.py", settings.demo_home / SCRIPT)
        requests.post(f"{server.url}/runs/{run_id}/cancel", timeout=60)
        said, complained = process.communicate(timeout=100)
    assert (process.returncode, said) == (0, "ok: Hello\n"), complained


def test_a_reset_by_hand_ends_the_child_that_waits(serve: Serve, child_settings: ChildSettings) -> None:
    server = serve(child_settings("passes", warm="imports"))
    child = wait_for_child(server.settings.state_dir)
    state = str(server.settings.state_dir)
    command = [sys.executable, "-m", "demo_api", "device", "reset", "--state-dir", state, "--reset-command", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "device: free\n"), done.stderr
    assert not child.is_running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told_to_stop", "killed"])
def test_a_server_that_ends_takes_its_child_with_it(tmp_path: Path, number: signal.Signals) -> None:
    site = Site(tmp_path)
    with site.serving(warm="imports") as server:
        child = wait_for_child(site.state)
        server.process.send_signal(number)
        server.process.wait(60)
        child.wait(60)
    assert site.processes() == []
    with site.serving(warm="imports") as server:
        assert server.chat("Hello").status_code == 200
        assert not server.device()["reason"]


def test_the_child_of_a_frozen_server_keeps_nobody_from_the_device(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving(warm="imports") as frozen, site.serving(warm="off", stop_grace=1) as other:
        child = wait_for_child(site.state)
        frozen.freeze(site.ledger)
        assert timing(other.chat("Hello"))["warm"] == "off"
        assert child.status() == psutil.STATUS_ZOMBIE  # it is the frozen server's to reap
        frozen.thaw()
        assert answer(frozen.chat("again"))["success"]
    assert site.overlaps() == ""


def test_a_child_that_is_killed_together_with_its_server_leaves_the_device_in_doubt(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving(warm="imports") as server:
        child = wait_for_child(site.state)
        server.freeze(site.ledger)  # so that it sees nothing
        child.kill()
        server.kill()
        with site.serving(warm="off") as other:
            assert answer(other.chat("Hello"))["success"]
            assert "was killed together with its server" in other.log()


def test_a_child_of_a_killed_server_that_has_to_be_killed_too_leaves_the_device_in_doubt(tmp_path: Path) -> None:
    site = Site(tmp_path, "deaf_if_warm")
    with site.serving(warm="imports") as server:
        until((site.home / "deaf").exists)
        server.kill()
        with site.serving(warm="off", stop_grace=1) as other:
            assert answer(other.chat("Hello"))["success"]
            assert "did not leave at SIGINT" in other.log()
