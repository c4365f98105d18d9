"""A child that keeps its model answers a thousand batches as the first one, and grows in no way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from support.real_server import RealServer, Site
from support.serving import Server
from support.waiting import until

from demo_api.config import Settings

BATCHES = 1000
WARM_UP = 50
PROMPTS = [
    "What is 2+2?",
    "Name three primary colors.",
    "Write one sentence about the sea.",
    "Say hi.",
    "Repeat after me: " + "the ship sails on. " * 40,
    "Repeat after me: " + "the ship sails on. " * 100,
]
HISTORIES = 100


@pytest.mark.timeout(2400)
def test_a_child_that_answers_a_thousand_batches_does_not_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, "keeps_model")
    with site.serving(warm="model", keep_runs=100) as server:
        pids = {_pid(server, number) for number in range(WARM_UP)}
        (pid,) = pids
        before = _size(pid)
        for number in range(WARM_UP, BATCHES):
            assert _pid(server, number) == pid
        after = _size(pid)
        assert server.device()["warm_batches"] == BATCHES
    with capsys.disabled():
        print(f" {before} -> {after} (bytes, descriptors, threads);", end="")
    assert after[0] - before[0] < 16 * 2**20
    assert after[1] <= before[1] + 1  # one is open for a moment after each batch
    assert after[2] <= before[2]
    assert site.processes() == []


def _pid(server: RealServer, number: int) -> int:
    body = server.chat(f"run {number}", max_tokens=400).json()
    found = json.loads(body["response"])
    assert found["prompt"] == f"run {number}"
    return int(found["pid"])


def _size(pid: int) -> tuple[int, int, int]:
    process = psutil.Process(pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


@pytest.mark.timeout(2400)
def test_greedy_answers_are_those_of_a_fresh_child_whatever_came_before(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path, tmp_path: Path
) -> None:
    cold = serve(settings(warm="off", state_dir=tmp_path / "cold"))
    kept = serve(settings(warm="model", state_dir=tmp_path / "kept"))
    fresh = {prompt: _answer(cold, prompt) for prompt in PROMPTS}
    chance = random.Random(17)
    for _ in range(HISTORIES):
        _make_history(kept, chance)
        prompt = chance.choice(PROMPTS)
        assert _answer(kept, prompt) == fresh[prompt]
    assert kept.get("/health").json()["device"]["warm"] == "model"


def _make_history(server: Server, chance: random.Random) -> None:
    """Something else first: a sampled answer, a batch, a prompt that does not fit, a run that is cancelled."""
    kind = chance.choice(["sampled", "batch", "too long", "cancelled", "nothing"])
    if kind == "sampled":
        server.chat(chance.choice(PROMPTS), max_tokens=chance.randint(1, 60), temperature=1.0)
    elif kind == "too long":
        assert server.chat("7" * 9000, max_tokens=8).json()["code"] == "demo_failed"
    elif kind != "nothing":
        size = chance.choice([2, 3, 8]) if kind == "batch" else 1
        body = {"prompts": chance.choices(PROMPTS, k=size), "max_tokens": 40, "temperature": 0}
        runs = requests.post(f"{server.url}/runs", json=body, timeout=10).json()["runs"]
        if kind == "cancelled":
            requests.post(f"{server.url}/runs/{runs[0]['run_id']}/cancel", timeout=10)
        for run in runs:
            until(lambda run=run: bool(server.get(f"/runs/{run['run_id']}").json()["finished_at"]))  # type: ignore[misc]


def _answer(server: Server, prompt: str) -> str:
    body = server.chat(prompt, max_tokens=32, temperature=0).json()
    assert body["success"], body
    return str(body["response"])
