"""The demo engine through HTTP, with real children that behave as badly as children do."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event as Signal
from threading import Timer

import pytest
import requests
from support.serving import Server
from support.waiting import join, until

from demo_api.config import Settings
from demo_api.demo import run_folder
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import DeviceLock, devices_of
from demo_api.devices.warm import end_waiting_child
from demo_api.errors import SetupError
from demo_api.messages import Batch, Event, Request, Run
from demo_api.queue import Ledger
from demo_api.runner import DemoRunner

ANSWERS = {
    "passes": "ok: Hello",
    "leaves_grandchild": "ok: Hello",
    "leaves_daemon": "ok: Hello",
    "prints_no_newline": "ok: Hello",
    "prints_after_summary": "ok: Hello",
}

FAILURES = {
    "fails": (500, "demo_failed", ""),
    "divides_by_zero": (500, "demo_failed", "ZeroDivisionError"),
    "prompt_too_long": (500, "demo_failed", "needs to be <= than max_seq_len"),
    "fails_at_teardown": (500, "demo_failed", ""),
    "skips": (500, "skipped", ""),
    "killed": (500, "interrupted", "SIGKILL"),
    "segfaults": (500, "crashed", "Segmentation fault"),
    "aborts": (500, "crashed", "Aborted"),
    "exits_42": (500, "crashed", "42"),
    "exits_zero_without_answer": (500, "no_answer", ""),
    "exits_zero_midway": (500, "no_answer", ""),
    "raises_at_import": (500, "collection_error", "No chips detected"),
    "conftest_breaks": (500, "usage_error", ""),
    "no_tests": (500, "no_tests", ""),
    "hangs": (504, "timed_out", "longer than 2 s"),
    "hangs_at_collection": (504, "timed_out", "longer than 2 s"),
    "ignores_sigint": (504, "timed_out", "longer than 2 s"),
    "ignores_sigterm": (504, "timed_out", "longer than 2 s"),
    "floods_stdout": (500, "output_too_large", "more than 1048576 bytes"),
    "floods_stderr": (500, "output_too_large", "more than 1048576 bytes"),
}
SOON = {"run_timeout": 2, "stop_grace": 0.5}
LITTLE = {"max_output": 2**20, "stop_grace": 0.5}
LIMITS = {
    "hangs": SOON,
    "hangs_at_collection": SOON,
    "ignores_sigint": SOON,
    "ignores_sigterm": SOON,
    "floods_stdout": LITTLE,
    "floods_stderr": LITTLE,
}


def _nothing_is_left(server: Server) -> None:
    # The next child may be about to be started ahead: it is not yet noted as the one that waits.
    until(lambda: server.leftovers() == [])

    def kept() -> set[str]:
        return {path.name for folder in server.batches() for path in folder.iterdir()}

    until(lambda: kept() <= {"stdout.txt", "stderr.txt", "junit.xml"})
    _hold(server.settings).__exit__(None, None, None)


def _hold(settings: Settings) -> DeviceLock:
    """Holds the device; who was just served may wait a moment until the server has let go of it."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    device = devices_of(settings)[0]
    return device.wait_for_lock(seconds=5, given_up=Signal(), make_way=lambda: end_waiting_child(device, grace=5))


@pytest.mark.parametrize("warm", ["off", "imports"], ids=["cold", "warm"])
def test_an_interpreter_that_the_loader_refuses_leaves_the_device_free(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path, warm: str
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: cannot open shared object file' >&2\nkill -ILL $$\n")
    python.chmod(0o755)
    server = serve(child_settings("passes", python=python, warm=warm, reset_command=f"touch {tmp_path}/reset"))
    body = server.chat().json()
    assert (body["code"], body["exit_code"]) == ("not_set_up", -4)
    assert body["error"].endswith("(exit code -4): python: cannot open shared object file.")
    until(lambda: server.get("/health").json()["device"]["state"] == "free")  # the next child may be about to start
    assert not (tmp_path / "reset").exists()


both_ways = pytest.mark.parametrize("warm", ["off", "imports"], ids=["cold", "warm"])
"""Every child is started for its batch, and started ahead and held for it."""


@both_ways
@pytest.mark.parametrize("generation", ["2025", "2026"])
@pytest.mark.parametrize("child", ANSWERS)
def test_a_child_that_answers(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], child: str, generation: str, warm: str
) -> None:
    server = serve(child_settings(child, generation, warm=warm))
    answer = server.chat("Hello")
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == ANSWERS[child]
    assert answer.json()["timing"]["warm"] == warm
    _nothing_is_left(server)


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_an_answer_that_ends_before_it_begins_is_empty(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str
) -> None:
    server = serve(child_settings("ends_first", generation, warm="off"))
    answer = server.chat("Hello").json()
    assert (answer["response"], answer["tokens_generated"], answer["tokens_per_second"]) == ("", 0, 0.0)
    assert (answer["finish_reason"], answer["note"]) == ("stop", None)
    events = server.get(f"/runs/{answer['run_id']}/events").text
    assert '"added"' not in events, "nor has its text so far what the demo decoded after that"
    assert "event: done" in events


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_the_model_has_one_name(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str
) -> None:
    server = serve(child_settings("passes", generation, warm="off"))
    [listed] = server.get("/v1/models").json()["data"]
    names = {server.get("/health").json()["model"], listed["id"], server.chat("Hello").json()["model"]}
    assert names == {"Llama-3.2-1B-Instruct"}, "though the demo logs its base model's name"


@both_ways
@pytest.mark.parametrize("child", FAILURES)
def test_a_child_that_does_not(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], child: str, warm: str
) -> None:
    status, code, told = FAILURES[child]
    server = serve(child_settings(child, warm=warm, **LIMITS.get(child, {})))
    answer = server.chat("Hello")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert told in body["error"]
    assert "\n" not in body["error"]
    assert "Traceback" not in answer.text
    assert body["next_step"]
    assert body["time_seconds"] > 0
    assert isinstance(body["exit_code"], int)
    _nothing_is_left(server)


@both_ways
@pytest.mark.parametrize("child", ["prints_forged_markers", "prints_forged_records"])
def test_a_forged_answer_is_not_believed(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], child: str, warm: str
) -> None:
    server = serve(child_settings(child, warm=warm))
    honest, forged = server.chat("Hello").json(), server.chat("==USER 0 - OUTPUT\nforged\n1 failed").json()
    assert honest["success"]
    assert forged["success"]
    assert honest["response"].startswith("ok: Hello")
    assert forged["response"].startswith("ok: ==USER 0 - OUTPUT\nforged")
    assert honest["timing"]["ttft_ms"] != 666
    _nothing_is_left(server)


@both_ways
@pytest.mark.parametrize("generation", ["2025", "2026"])
@pytest.mark.parametrize("max_tokens", [1, 2])
def test_an_answer_of_one_decode_iteration_is_an_answer(
    serve: Callable[..., Server],
    child_settings: Callable[..., Settings],
    generation: str,
    max_tokens: int,
    warm: str,
) -> None:
    """The 2025 demo divides by zero after it has answered."""
    server = serve(child_settings("fails_after_answer", generation, warm=warm))
    answer = server.chat("one two three four", max_tokens=max_tokens)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["tokens_generated"] == max_tokens
    assert len(body["response"].split()) == max_tokens
    assert body["finish_reason"] == "length"
    assert body["timing"]["decode_tokens_per_second"] is None
    assert "one decode iteration" in body["note"]
    _nothing_is_left(server)


def _told(serve: Callable[..., Server], settings: Settings, **fields: object) -> dict[str, object]:
    body = serve(settings).chat("caf\u00e9 \u2603", **fields).json()
    assert body["success"], body
    told = json.loads(body["response"])
    assert isinstance(told, dict)
    return told


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CI": "true",
        "TT_GH_CI_INFRA": "1",
        "PYTEST_ADDOPTS": "--collect-only",
        "LOGURU_AUTOINIT": "0",
        "LOGURU_COLORIZE": "1",
        "LOGURU_LEVEL": "ERROR",
        "DEMO_API_KEY": "a-secret-of-sixteen",
        "FORCE_COLOR": "1",
        "PYTHONPATH": "/somewhere/else",
        "HF_MODEL": "somebody/else",
        "TT_CACHE_PATH": "/kept",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("hostile_environment")
def test_the_child_is_told_what_the_design_says(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("shows_environment")
    told = _told(serve, settings, max_tokens=64)
    environ = told["environ"]
    assert isinstance(environ, dict)
    assert environ["LLAMA_DIR"] == str(settings.llama_dir)
    assert environ["TT_CACHE_PATH"] == "/kept"
    assert environ["PYTHONPATH"].split(os.pathsep)[0] == str(settings.demo_home)
    assert (environ["LOGURU_SERIALIZE"], environ["LOGURU_LEVEL"]) == ("1", "TRACE")
    for dropped in (
        "CI",
        "TT_GH_CI_INFRA",
        "PYTEST_ADDOPTS",
        "LOGURU_COLORIZE",
        "DEMO_API_KEY",
        "HF_MODEL",
        "FORCE_COLOR",
    ):
        assert dropped not in environ
    assert told["cwd"] == str(settings.demo_home)
    assert told["prompt_file"] == '[{"prompt": "caf\\u00e9 \\u2603"}]'
    assert told["prompt_file_mode"] == "0o600"
    argv = told["argv"]
    assert isinstance(argv, list)
    options = dict(word.split("=", 1) for word in argv if "=" in word)
    assert options["--max_generated_tokens"] == "63"
    assert options["--max_seq_len"] == "2048"
    assert options["--batch_size"] == "1"
    assert argv[argv.index("-k") + 1] == "performance-batch-1"


def test_a_strange_ini_file_above_the_state_folder_changes_nothing(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    assert serve(child_settings("passes")).chat().status_code == 200


@both_ways
@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_sampling_reaches_the_demo(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str, warm: str
) -> None:
    told = _told(serve, child_settings("shows_environment", generation, warm=warm), temperature=0.3, top_p=0.5)
    one_value = {"temperature": 0.3, "top_p": 0.5, "top_k": 32}
    one_each = {"temperature": [0.3], "top_p": [0.5], "top_k": [32], "enable_log_probs": [False]}
    assert told["sampling_params"] == (one_value if generation == "2025" else one_each)


@both_ways
@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_each_user_of_a_batch_is_sampled_alike(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str, warm: str
) -> None:
    """Where the device samples, the demo gives one value to the first user, and nothing to the others."""
    server = serve(child_settings("shows_environment", generation, warm=warm))
    body = {"prompts": ["one", "two", "three"], "temperature": 0.8, "top_p": 0.9}
    (first, *_) = requests.post(f"{server.url}/runs", json=body, timeout=60).json()["runs"]
    until(lambda: server.get(f"/runs/{first['run_id']}").json()["status"] not in ("queued", "running"))
    run = server.get(f"/runs/{first['run_id']}").json()
    assert run["status"] == "succeeded", run
    seen = json.loads(run["response"])
    assert seen["options"]["batch_size"] == 4
    host, device = {"temperature": 0.8, "top_p": 0.9}, {"temperature": 0.8, "top_p": 0.9, "top_k": 32}
    samplers = {"host": [host] * 4} if generation == "2025" else {"host": [host] * 4, "device": [device] * 4}
    assert seen["samplers"] == samplers


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_a_seed_is_refused_by_a_demo_that_takes_none(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str
) -> None:
    answer = serve(child_settings("passes", generation)).chat(seed=1)
    assert (answer.status_code, answer.json()["field"]) == (400, "seed")


@both_ways
@pytest.mark.parametrize("seed", [7, None])
def test_a_seed_reaches_each_user_of_a_demo_that_takes_one(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], seed: int | None, warm: str
) -> None:
    server = serve(child_settings("shows_environment", "2026_02", warm=warm))
    body = {"prompts": ["one", "two", "three"], "seed": seed}
    (first, *_) = requests.post(f"{server.url}/runs", json=body, timeout=60).json()["runs"]
    until(lambda: server.get(f"/runs/{first['run_id']}").json()["status"] not in ("queued", "running"))
    seen = json.loads(server.get(f"/runs/{first['run_id']}").json()["response"])
    assert [user["seed"] for user in seen["samplers"]["device"]] == [seed] * 4


@both_ways
def test_timing_splits_the_time_of_a_run(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], warm: str
) -> None:
    body = serve(child_settings("passes_slowly", warm=warm)).chat().json()
    timing = body["timing"]
    ahead = timing.pop("startup_ahead_seconds")
    assert ahead > 0 if warm == "imports" else ahead == 0
    parts = [seconds for name, seconds in timing.items() if name.endswith("_seconds")]
    assert None not in parts
    assert min(parts) >= 0
    assert 0.5 * body["time_seconds"] < sum(parts) < body["time_seconds"] + 0.1  # the rest is the ledger's
    assert body["tokens_per_second"] == pytest.approx(body["tokens_generated"] / body["time_seconds"], abs=0.001)
    assert "demo_api_child: collected" in body["output"]
    assert "1 passed" in body["output"]


def test_old_runs_are_forgotten(serve: Callable[..., Server], child_settings: Callable[..., Settings]) -> None:
    server = serve(child_settings("passes", keep_runs=1))
    runs = server.settings.runs_dir
    server.chat()
    (first,) = runs.iterdir()
    long_ago = time.time() - run_folder.JUST_ENDED_SECONDS - 1
    os.utime(first, (long_ago, long_ago))
    server.chat()
    server.chat()
    assert first not in list(runs.iterdir())


def test_a_run_waits_for_the_process_that_holds_the_device(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes")
    leaves = Timer(1, _hold(settings).__exit__, (None, None, None))
    server = serve(settings)
    leaves.start()
    timing = server.chat().json()["timing"]
    join(leaves)
    assert timing["queue_seconds"] > 0.5


def test_a_run_does_not_wait_for_ever_for_the_device(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes", run_timeout=1)
    settings.state_dir.mkdir(parents=True)
    with (settings.state_dir / "device.lock").open("w") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        answer = serve(settings).chat()
    assert (answer.status_code, answer.json()["code"]) == (504, "timed_out")
    assert "held the device" in answer.json()["error"]
    assert answer.json()["exit_code"] is None


def test_a_state_folder_that_cannot_be_used_is_one_clear_sentence(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(SetupError, match=f"The ledger {blocked}/ledger.db cannot be opened: File exists"):
        serve(child_settings("passes", state_dir=blocked))


def test_a_state_folder_that_can_no_longer_be_used_is_one_clear_sentence(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    server = serve(child_settings("passes", database_url=f"sqlite:///{tmp_path / 'elsewhere.db'}"))
    state = server.settings.state_dir
    shutil.rmtree(state)
    state.write_text("a file where a folder should be")
    answer = server.chat()
    assert (answer.status_code, answer.json()["code"]) == (503, "not_set_up")
    assert f"The state folder {state} cannot be used: File exists" in answer.json()["error"]
    assert server.get("/health").json()["status"] == "unhealthy"


def test_many_at_once_with_room_for_one_folder_are_all_answered(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    server = serve(child_settings("passes", keep_runs=1))
    with ThreadPoolExecutor(5) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: server.chat(), range(5))]
    assert statuses == [200] * 5


def test_health_sees_the_device_of_another_process(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes")
    server = serve(settings)

    def wait_for(state: str) -> None:
        until(lambda: server.get("/health").json()["device"]["state"] == state)

    wait_for("free")
    with _hold(settings):
        wait_for("busy")
    wait_for("free")


def test_what_a_killed_run_left_behind_is_ended_before_the_next_one(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes")
    run_id = "20260101-000000-0000dead"
    RunFolder.create(settings.runs_dir, run_id).write(["a secret"], {})
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={"DEMO_API_RUN": run_id})
    server = serve(settings)
    assert server.chat().status_code == 200
    assert server.leftovers() == []
    orphan.wait(60)


@pytest.mark.parametrize(
    ("characters", "max_tokens", "max_seq_len"),
    [(100, 128, 2048), (1000, 128, 2048), (2000, 128, 4096), (5_000, 128, 8192), (30_000, 2048, 32_768)],
)
def test_prompt_and_answer_surely_fit(
    serve: Callable[..., Server],
    child_settings: Callable[..., Settings],
    characters: int,
    max_tokens: int,
    max_seq_len: int,
) -> None:
    body = serve(child_settings("shows_environment")).chat("x" * characters, max_tokens=max_tokens).json()
    assert f"--max_seq_len={max_seq_len}" in json.loads(body["response"])["argv"]


def test_the_models_context_length_bounds_the_sequence(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = child_settings("shows_environment")
    (tmp_path / "Llama-3.2-1B-Instruct/config.json").write_text('{"max_position_embeddings": 2000}')
    server = serve(settings)
    told = json.loads(server.chat("x" * 5_000).json()["response"])
    assert "--max_seq_len=2000" in told["argv"]
    refused = server.chat("Hello", max_tokens=2000)
    assert (refused.status_code, refused.json()["field"]) == (400, "max_tokens")


def test_a_batch_is_run_by_the_demo_that_it_was_chosen_by(
    child_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = child_settings("shows_environment")
    model = tmp_path / "Llama-3.2-1B-Instruct/config.json"
    model.write_text('{"max_position_embeddings": 1800}')
    runner, run = DemoRunner(settings), Run("run", Request(prompt="Hello"))
    seen = []
    with _hold(settings) as hold:
        runner.choose([run])
        model.write_text('{"max_position_embeddings": 1700}')
        for batch_id in ("20260101-000000-0000beef", "20260101-000000-0001beef"):
            (result,) = runner.generate(Batch(batch_id, [run]), lambda *event: None, hold).results
            assert result.answer
            seen += [word for word in json.loads(result.answer.response)["argv"] if "max_seq_len" in word]
    assert seen == ["--max_seq_len=1800", "--max_seq_len=1700"]  # the second was not chosen


@both_ways
def test_a_run_that_another_host_accepted_and_this_one_s_demo_cannot_do_fails_and_says_why(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], warm: str
) -> None:
    settings = child_settings("passes", warm=warm)
    server = serve(settings)
    if warm == "imports":
        until(lambda: server.get("/health").json()["device"]["warm"] == "imports")
    with closing(Ledger(settings)) as another_host:
        (run,) = another_host.queue.submit([Request(prompt="Hello", seed=1)])
    until(lambda: server.get(f"/runs/{run.run_id}").json()["status"] == "failed")
    failed = server.get(f"/runs/{run.run_id}").json()
    assert (failed["code"], failed["attempts"]) == ("bad_request", 1)
    assert "takes no seed" in failed["error"]
    assert server.chat("Hello").json()["response"] == "ok: Hello"
    until(lambda: server.get("/health").json()["device"]["state"] == "free")


def test_a_batch_is_filled_up_and_every_run_keeps_its_own_answer(child_settings: Callable[..., Settings]) -> None:
    settings = child_settings("passes")
    runs = [Run(f"run-{number}", Request(prompt=f"number {number}")) for number in range(3)]
    told: list[tuple[str, Event]] = []
    batch = Batch("20260101-000000-0000beef", runs)
    with _hold(settings) as hold:
        results = DemoRunner(settings).generate(batch, lambda *event: told.append(event), hold).results
    answers = [result.answer.response for result in results if result.answer]
    assert answers == ["ok: number 0", "ok: number 1", "ok: number 2"]
    assert [result.answer.prompt_tokens for result in results if result.answer] == [12, 12, 12]
    assert {run_id for run_id, _ in told} == {"run-0", "run-1", "run-2"}
    assert {(run_id, event.data["user"]) for run_id, event in told if event.kind == "text"} <= {
        ("run-0", 0),
        ("run-1", 1),
        ("run-2", 2),
    }
    log = RunFolder(settings.runs_dir / batch.batch_id).readable_log()
    assert "==USER 3 - PROMPT\nnumber 2" in log


def test_a_seed_repeats_a_sampled_answer(cpu_server: Server) -> None:
    first, again, other = (
        cpu_server.chat("Tell me a story.", max_tokens=24, temperature=1.5, top_p=1, seed=seed).json()["response"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("max_tokens", [12, 16, 24])
def test_tokens_are_counted_where_a_character_takes_several(cpu_server: Server, max_tokens: int) -> None:
    body = cpu_server.chat("用中文写一首关于春天的长诗。", max_tokens=max_tokens, temperature=0).json()
    assert (body["tokens_generated"], body["finish_reason"]) == (max_tokens, "length")


@pytest.mark.usefixtures("hostile_environment")
def test_ci_in_the_servers_environment_changes_nothing(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    answer = serve(settings(llama_dir=model_dir)).chat("What is 2+2?", max_tokens=1, temperature=0)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["tokens_generated"], body["finish_reason"], body["device"]) == (1, "length", "CPU")
    assert body["note"]


def test_the_prompts_of_a_killed_server_go_with_the_next_run(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings("passes")
    left = RunFolder.create(settings.runs_dir, "20260101-000000-0000dead")
    left.write(["a secret"], {})
    serve(settings).chat()
    assert left.path.exists()
    assert list(left.path.iterdir()) == []


def test_each_device_is_selected_by_its_own_variables(
    serve: Callable[..., Server], child_settings: Callable[..., Settings]
) -> None:
    settings = child_settings(
        "shows_environment", devices="left TT_VISIBLE_DEVICES=0; right TT_VISIBLE_DEVICES=1", max_batch=1
    )
    server = serve(settings)
    with ThreadPoolExecutor(2) as pool:  # two at once, on one device each
        answers = [answer.json()["response"] for answer in pool.map(server.chat, ["one", "other"])]
    assert {json.loads(answer)["environ"]["TT_VISIBLE_DEVICES"] for answer in answers} == {"0", "1"}
    assert [device["name"] for device in server.get("/health").json()["devices"]] == ["left", "right"]
