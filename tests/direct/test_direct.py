"""The direct engine over HTTP: with a hand-written model, and with the real one against the demo's own answers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from support.command_line import demo_api, serving
from support.echo_model import EchoModel
from support.serving import Server, clean_environ
from support.sse import events
from support.waiting import until

from demo_api.config import Settings
from demo_api.direct import DirectEngine
from demo_api.errors import ShuttingDown
from demo_api.messages import Answer, Request, Result, Run, Timing
from demo_api.web.request_log import log_answer

Make = Callable[..., tuple[Server, EchoModel]]


@pytest.fixture
def make(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Make:
    """Starts a server with a hand-written model."""

    def start(model: EchoModel | None = None, **flags: object) -> tuple[Server, EchoModel]:
        used = model or EchoModel()
        chosen = settings(engine="direct", **flags)
        server = serve(chosen, DirectEngine(used, chosen))
        until(lambda: server.get("/readyz").status_code == 200 or not used.let_load.is_set() or not used._loads)
        return server, used

    return start


def test_chat_answers_with_the_fields_of_the_demos_answer(make: Make) -> None:
    server, _ = make()
    body = server.chat("one two three").json()
    assert (body["success"], body["response"], body["engine"], body["model"]) == (
        True,
        "one two three",
        "direct",
        "echo",
    )
    assert (body["tokens_generated"], body["finish_reason"], body["output"]) == (3, "stop", None)
    seconds = body["time_seconds"]  # often too short for its three decimals
    assert body["tokens_per_second"] == (pytest.approx(3 / seconds, abs=1) if seconds else None)
    assert body["timing"]["ttft_ms"] == 1.5
    assert body["timing"]["load_seconds"] is None
    assert server.chat("one two three", max_tokens=2).json()["finish_reason"] == "length"


def test_the_port_answers_while_the_model_is_loaded(make: Make) -> None:
    model = EchoModel()
    model.let_load.clear()
    server, _ = make(model)
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["code"], ready.json()["phase"]) == (503, "starting", "load")
    assert ready.headers["Retry-After"]
    health = server.get("/health").json()
    assert (health["status"], health["model_loaded"]) == ("starting", False)
    assert server.chat().json()["code"] == "starting"
    assert server.get("/livez").status_code == 200
    model.let_load.set()
    until(lambda: server.get("/readyz").status_code == 200)
    until(lambda: server.get("/health").json()["status"] == "healthy")
    health = server.get("/health").json()
    assert (health["model_loaded"], health["model"]) == (True, "echo")
    assert server.chat().status_code == 200


def test_a_model_that_cannot_be_loaded_is_told_everywhere(make: Make) -> None:
    server, _ = make(EchoModel(loads=False))
    until(lambda: server.get("/health").json()["status"] == "unhealthy")
    assert server.get("/health").json()["note"] == "The model is broken. Get another."
    for answer in (server.get("/readyz"), server.chat()):
        assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (
            503,
            "not_set_up",
            "The model is broken.",
        )


def test_as_many_as_there_are_slots_are_answered_at_once_and_the_others_wait(make: Make) -> None:
    server, model = make(EchoModel(slots=2, paused=True), max_queue=3)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(server.chat, f"number {number}") for number in range(5)]
        queue = {"waiting": 3, "running": 2, "limit": 3, "slots": 2}
        until(lambda: server.get("/health").json()["queue"] == queue)
        assert server.get("/health").json()["device"]["state"] == "busy"
        refused = server.chat("one too many")
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        model.let_go.set()
        assert [answer.result().json()["response"] for answer in answers] == [f"number {n}" for n in range(5)]
    assert model.most_at_once == 2
    assert server.chat("again").status_code == 200


REFUSED = {
    "what the model refuses at once": ("refuse this", 400, "bad_request"),
    "what does not fit": ("a " * 3000, 400, "bad_request"),
    "what breaks the engine": ("break", 500, "internal_error"),
}


@pytest.mark.parametrize(("prompt", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_told_and_the_next_is_answered(
    make: Make, prompt: str, status: int, code: str
) -> None:
    server, _ = make()
    answer = server.chat(prompt)
    assert (answer.status_code, answer.json()["code"], answer.json()["success"]) == (status, code, False)
    assert answer.json()["next_step"]
    assert "Traceback" not in answer.text
    assert server.chat("next").json()["response"] == "next"


def test_an_answer_that_takes_too_long_is_stopped(make: Make) -> None:
    server, model = make(EchoModel(paused=True), run_timeout=0.3)
    answer = server.chat()
    assert (answer.status_code, answer.json()["code"]) == (504, "timed_out")
    assert "0.3 s" in answer.json()["error"]
    until(lambda: model.at_once == 0)


def test_a_stream_tells_each_token_as_it_comes(make: Make) -> None:
    server, model = make(EchoModel(paused=True))
    seen = events(f"{server.url}/chat/stream", body={"prompt": "one two three"})
    assert [next(seen)[1], next(seen)[1]] == ["queued", "started"]
    assert next(seen)[2]["phase"] == "prefill"
    model.let_go.set()
    rest = list(seen)
    assert [data["phase"] for _, kind, data in rest if kind == "phase"] == ["decode"]
    progress = next(data for _, kind, data in rest if kind == "progress")
    assert progress["iteration"] == 0, "the second token"
    assert progress["tokens_per_second_per_user"] > 0
    assert [data["added"] for _, kind, data in rest if kind == "text"] == ["one", " two", " three"]
    _, kind, done = rest[-1]
    assert (kind, done["status"], done["response"], done["tokens_generated"]) == (
        "done",
        "succeeded",
        "one two three",
        3,
    )


def test_five_answers_to_like_requests_make_an_estimate(make: Make) -> None:
    server, _ = make()

    def estimates(**fields: object) -> list[Any]:
        seen = events(f"{server.url}/chat/stream", body={"prompt": "one two", **fields})
        return [data["estimate"] for _, kind, data in seen if kind == "started"]

    server.chat("break")  # it failed, so it does not count
    assert [estimates() for _ in range(5)] == [[None]] * 5
    (estimate,) = estimates()
    assert 0 <= estimate["low_seconds"] <= estimate["high_seconds"] < 100
    assert (estimate["quantiles"], estimate["runs"]) == ([0.1, 0.9], 5)
    assert estimates(max_tokens=7) == [None]
    assert server.get("/health").json()["estimate"]["runs"] == 7


def test_a_stream_that_fails_ends_with_the_failure(make: Make) -> None:
    server, _ = make()
    _, kind, done = list(events(f"{server.url}/chat/stream", body={"prompt": "break"}))[-1]
    assert (kind, done["status"], done["success"], done["code"]) == ("done", "failed", False, "internal_error")


def test_a_server_that_stops_breaks_off_what_runs_and_frees_the_model_once(make: Make) -> None:
    server, model = make(EchoModel(paused=True), drain=0)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.chat)
        assert model.entered.acquire(timeout=60)
        server.service.close()
        assert (answer.result().status_code, answer.result().json()["code"]) == (503, "shutting_down")
    assert model.closed == 1
    assert not model.was_closed_in_use
    assert (server.chat().status_code, server.chat().json()["code"]) == (503, "shutting_down")


def test_a_server_that_stops_gives_what_runs_its_time(make: Make) -> None:
    server, model = make(EchoModel(paused=True), drain=30)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.chat)
        assert model.entered.acquire(timeout=60)
        threading.Timer(0.3, model.let_go.set).start()
        server.service.close()
        assert answer.result().status_code == 200
    assert model.closed == 1
    assert not model.was_closed_in_use


def test_what_only_runs_have_is_refused(make: Make) -> None:
    server, _ = make()
    missing = server.get("/runs")
    assert missing.status_code == 404
    assert "POST /chat" in missing.json()["available_endpoints"]
    key = {"Idempotency-Key": "a"}
    keyed = requests.post(f"{server.url}/chat", json={"prompt": "a"}, headers=key, timeout=60)
    assert (keyed.status_code, keyed.json()["field"]) == (400, "Idempotency-Key")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[str]:
    """The address of a real direct server, in a process of its own, with the real model."""
    state = tmp_path_factory.mktemp("state")
    flags = ["--engine", "direct", "--state-dir", str(state), "--llama-dir", str(model_dir)]
    with serving(*flags, environ=clean_environ()) as server:
        until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 200)
        yield server.url


PROMPTS = [
    "What is 2+2?",
    "Name three primary colors.",
    "Write a haiku about rain. ☔",
    "  Say 'hello'.\n\n",
    "if x < 3:",
]


@pytest.mark.parametrize("max_tokens", [1, 2, 40])
def test_greedy_answers_are_the_demos_to_the_byte(
    real: str, serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path, max_tokens: int
) -> None:
    demo = serve(settings(llama_dir=model_dir))
    fields = {"max_tokens": max_tokens, "temperature": 0}
    body = {"prompts": PROMPTS, **fields}
    run_ids = [run["run_id"] for run in requests.post(f"{demo.url}/runs", json=body, timeout=60).json()["runs"]]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:  # all at once here too
        ours = list(pool.map(lambda prompt: ask(real, prompt, **fields), PROMPTS))
    for run_id, answer in zip(run_ids, ours, strict=True):
        requests.get(f"{demo.url}/runs/{run_id}/events", timeout=100)  # until it has ended
        theirs = demo.get(f"/runs/{run_id}").json()
        names = ("response", "tokens_generated", "finish_reason")
        assert [answer[name] for name in names] == [theirs[name] for name in names]


def ask(url: str, prompt: str, **fields: object) -> dict[str, Any]:
    answer: dict[str, Any] = requests.post(f"{url}/chat", json={"prompt": prompt, **fields}, timeout=100).json()
    return answer


def test_a_seed_repeats_a_sampled_answer(real: str) -> None:
    one, other = (ask(real, "Tell me a story.", temperature=1.5, seed=7, max_tokens=24)["response"] for _ in range(2))
    assert one == other
    many = {ask(real, "Tell me a story.", temperature=1.5, max_tokens=24)["response"] for _ in range(4)}
    assert len(many) > 1


def test_the_figures_are_the_engines_own(real: str) -> None:
    begun = time.monotonic()
    body = ask(real, "Count to a hundred.", max_tokens=32)
    seconds = time.monotonic() - begun
    timing = body["timing"]
    assert body["tokens_generated"] == 32
    assert 0 < timing["prefill_seconds"] + timing["decode_seconds"] <= seconds
    assert timing["ttft_ms"] == pytest.approx(1000 * timing["prefill_seconds"], rel=0.5, abs=200)
    assert timing["decode_tokens_per_second"] == pytest.approx(31 / timing["decode_seconds"], rel=0.1)


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(real: str) -> None:
    body = ask(real, "word " * 5000)
    assert (body["code"], body["field"]) == ("bad_request", "prompt")
    assert "2048" in body["error"]


def test_what_leaves_a_real_stream_frees_its_slot_within_a_token(real: str) -> None:
    answers = [
        requests.post(f"{real}/chat/stream", json={"prompt": "Count.", "max_tokens": 2000}, stream=True, timeout=60)
        for _ in range(8)
    ]
    for answer in answers:
        assert next(answer.iter_lines())
        answer.close()
    until(lambda: requests.get(f"{real}/health", timeout=60).json()["queue"]["running"] == 0)


def test_a_model_that_is_killed_fails_its_answers_and_comes_back(model_dir: Path, tmp_path: Path) -> None:
    flags = ["--engine", "direct", "--llama-dir", str(model_dir), "--state-dir", str(tmp_path), "--slots", "2"]
    with serving(*flags, environ=clean_environ()) as server, ThreadPoolExecutor(3) as pool:
        until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 200)
        fields = {"max_tokens": 2000, "temperature": 0}
        lost = [pool.submit(ask, server.url, "Count to a million.", **fields) for _ in range(2)]
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["queue"]["running"] == 2)
        waits = pool.submit(ask, server.url, "What is 2+2?", temperature=0)
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["queue"]["waiting"] == 1)
        (process,) = psutil.Process(server.process.pid).children()
        process.kill()
        assert [each.result()["code"] for each in lost] == ["engine_lost"] * 2
        assert requests.get(f"{server.url}/livez", timeout=60).status_code == 200
        assert waits.result()["response"] == "The answer to this classic math problem is 4."
        assert requests.get(f"{server.url}/health", timeout=60).json()["losses"] == 1


def test_a_model_that_does_not_fit_into_memory_does_not_take_the_server_along(model_dir: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v 600000\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    flags = ["--engine", "direct", "--llama-dir", str(model_dir), "--state-dir", str(tmp_path / "state")]
    with serving(*flags, "--python", str(python), environ=clean_environ()) as server:
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["status"] == "unhealthy")
        refused = requests.get(f"{server.url}/readyz", timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_set_up")
        assert requests.get(f"{server.url}/livez", timeout=60).status_code == 200


def test_a_demo_server_with_the_same_state_folder_leaves_the_model_alone(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    direct = serve(settings(engine="direct", llama_dir=model_dir))
    until(lambda: direct.get("/readyz").status_code == 200)
    demo = serve(settings(llama_dir=model_dir, warm="off"))
    assert demo.chat("What is 2+2?", temperature=0, max_tokens=4).status_code == 200
    assert direct.chat("What is 2+2?", temperature=0, max_tokens=4).status_code == 200
    assert direct.get("/health").json()["losses"] == 0


def test_serve_leaves_when_the_model_cannot_be_loaded_if_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no model")
    flags = ["--engine", "direct", "--llama-dir", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    with serving(*flags, "--fail-fast", "true", environ=clean_environ()) as server:
        assert server.process.wait(60) == 3
        assert server.process.stderr is not None
        assert "could not be loaded" in server.process.stderr.read()
    with serving(*flags, environ=clean_environ()) as server:
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["status"] == "unhealthy")
        assert "could not be loaded" in requests.get(f"{server.url}/health", timeout=60).json()["note"]


def test_a_long_temporary_path_does_not_matter_and_the_context_is_a_setting(model_dir: Path, tmp_path: Path) -> None:
    longer = tmp_path / ("long" * 25)
    longer.mkdir()
    flags = ["--engine", "direct", "--llama-dir", str(model_dir), "--state-dir", str(tmp_path / "state")]
    with serving(*flags, "--max-seq-len=1024", environ=clean_environ() | {"TMPDIR": str(longer)}) as server:
        assert server.next_line() == f"Listening on {server.url}; the model is being loaded\n"
        assert server.next_line() == f"Server ready on {server.url}\n"
        assert requests.get(f"{server.url}/readyz", timeout=60).status_code == 200
        assert requests.get(f"{server.url}/health", timeout=60).json()["settings"]["max_seq_len"] == 1024
        assert "the model takes 1024, the answer's included" in ask(server.url, "word " * 1100)["error"]
        assert ask(server.url, "Count.", max_tokens=4)["success"]
        server.wait_for_log("✓ Generated 4 tokens in ")


def test_a_longer_context_than_the_models_is_wrong_use(model_dir: Path, tmp_path: Path) -> None:
    words = ["--engine=direct", f"--llama-dir={model_dir}", f"--state-dir={tmp_path}", "--max-seq-len=16384"]
    done = demo_api("serve", "--port=0", *words, environ=clean_environ())
    assert done.returncode == 2
    assert "DEMO_API_MAX_SEQ_LEN or --max-seq-len is 16384, and the model was made for 8192 tokens." in done.stderr


TOLD = {
    "all": (
        Answer("a", 45),
        Timing(decode_seconds=1.234, decode_tokens_per_second=36.55),
        "45 tokens in 1.23s (36.5 tok/s)",
    ),
    "no decode": (Answer("a", 1), Timing(decode_seconds=0.0), "1 token in 0.00s"),
    "no times": (Answer("a", 2), Timing(), "2 tokens"),
    "no count": (Answer("a"), Timing(decode_tokens_per_second=3.0), "an answer (3.0 tok/s)"),
}


@pytest.mark.parametrize(("answer", "timing", "told"), TOLD.values(), ids=TOLD)
def test_the_log_tells_the_speed_as_far_as_it_is_known(
    caplog: pytest.LogCaptureFixture, answer: Answer, timing: Timing, told: str
) -> None:
    caplog.set_level("INFO")
    request = Request.model_validate({"prompt": "Hello"})
    log_answer(Run("x", request, accepted_at=0.0, result=Result("x", answer=answer, timing=timing)))
    assert caplog.messages == [f"run x: ✓ Generated {told}"]


def test_the_model_has_the_name_that_the_demo_engine_gives_it(real: str, model_dir: Path) -> None:
    assert requests.get(f"{real}/health", timeout=60).json()["model"] == model_dir.name
    assert requests.get(f"{real}/v1/models", timeout=60).json()["data"][0]["id"] == model_dir.name


def test_what_a_killed_server_left_in_the_temporary_folder_is_removed_by_the_next(model_dir: Path) -> None:
    flags = ["--engine", "direct", "--llama-dir", str(model_dir)]
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        environ = clean_environ() | {"TMPDIR": temporary, "DEMO_API_STATE_DIR": f"{temporary}/state"}
        names = []
        for _ in range(2):
            with serving(*flags, environ=environ) as server:
                until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 200)
                (folder,) = Path(temporary).glob("demo-api-direct-*")
                names.append(folder.name)
                server.process.kill()
                server.process.wait(60)
        assert len(set(names)) == 2


def test_who_waits_for_a_model_that_is_never_loaded_is_told_that_the_engine_was_closed(
    settings: Callable[..., Settings],
) -> None:
    engine = DirectEngine(EchoModel(), settings(engine="direct"))
    engine.close()
    engine.start()  # too late
    with pytest.raises(ShuttingDown):
        engine.wait_until_loaded()


def test_a_process_that_served_ends_without_being_told_to_close(tmp_path: Path) -> None:
    """As a worker of gunicorn ends."""
    script = """
from support.echo_model import EchoModel
from demo_api import create_app
from demo_api.config import Settings
from demo_api.direct import DirectEngine
settings = Settings.load({"engine": "direct"})
app = create_app(settings, DirectEngine(EchoModel(), settings))
assert app.test_client().get("/livez").status_code == 200
"""
    environ = os.environ | {"DEMO_API_STATE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
