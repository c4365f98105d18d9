"""Servers that are killed, over and over: every accepted run ends exactly once, and nothing is left or stuck."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support.real_server import RealServer, Site
from support.waiting import pause, until

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
ROUNDS = 20
RUNS_EACH = 5
PHASES = ["startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "output"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_killed_in_this_phase_is_followed_by_one_that_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.03")
    site = Site(tmp_path)
    with site.serving() as server:
        run_id = server.submit("Hello")
        server.wait_for_event(run_id, phase=phase)
        server.kill()
    with site.serving() as server:
        run = server.ending(run_id)
        assert (run["status"], run["response"]) == ("succeeded", "ok: Hello")
        assert run["attempts"] <= 2
        until(server.is_idle)
        assert site.processes() == []
    assert site.overlaps() == ""


@pytest.mark.parametrize("left", ["", "[]", '{"device": "d'], ids=["empty", "a list", "cut off"])
def test_a_server_killed_with_a_damaged_note_of_its_child_is_followed_by_one_that_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """As a power cut leaves it."""
    monkeypatch.setenv("CHILD_PAUSE", "0.1")
    site = Site(tmp_path)
    with site.serving() as server:
        run_ids = [server.submit("Hello"), server.submit("waits", max_tokens=5)]
        server.wait_for_event(run_ids[0], phase="load")
        (note,) = site.state.glob("runs/*/child.json")
        note.write_text(left)
        server.kill()
    with site.serving() as server:
        assert [server.ending(run_id)["status"] for run_id in run_ids] == ["succeeded"] * 2
        until(server.is_idle)
        assert server.get("/readyz").status_code == 200
        assert server.log().count(f"{note} is damaged") == 1
        assert site.processes() == []
    assert site.overlaps() == ""


def _submit(server: RealServer, round_number: int) -> list[str]:
    # Two at a time are alike, so that some go to a child together.
    return [server.submit(f"round {round_number}, run {n}", max_tokens=20 + n // 2) for n in range(RUNS_EACH)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("warm", ["off", "model"])
@pytest.mark.parametrize("seed", [SEED, SEED + 1], ids=lambda seed: f"seed {seed}")
def test_servers_killed_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, warm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.01")  # about a second for each child
    site = Site(tmp_path)
    chance = random.Random(seed)
    accepted: list[str] = []
    for number in range(ROUNDS):
        with site.serving(max_queue=1000, max_batch=2, warm=warm, warm_idle=2) as server:
            accepted += _submit(server, number)
            pause(chance.uniform(0, 4))
            server.kill()
            assert site.overlaps() == ""
    with site.serving(max_queue=1000, max_batch=2, warm=warm, warm_idle=2) as server:
        endings = [server.ending(run_id) for run_id in accepted]
        until(server.is_idle)
        until(lambda: site.processes() == [])
        listed = server.get("/runs?limit=200").json()["runs"]
        assert sorted(run["run_id"] for run in listed) == sorted(accepted)
        assert server.chat("and now?").json()["response"] == "ok: and now?"
    for run in endings:
        if run["status"] == "succeeded":
            assert run["response"] == f"ok: {run['prompt']}"
        else:
            assert (run["status"], run["code"], run["attempts"]) == ("failed", "child_lost", 3)
    assert site.overlaps() == ""
    site.check_ledger()
    with capsys.disabled():
        attempts = [sum(run["attempts"] == n for run in endings) for n in (1, 2, 3)]
        lost = sum(run["status"] == "failed" for run in endings)
        print(f" {len(endings)} runs: {attempts} needed 1, 2, 3 attempts, {lost} were given up;", end="")
