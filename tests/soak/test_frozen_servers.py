"""Servers that are suspended for longer than their lease while others go on, and that then wake up."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest
from support.real_server import RealServer, Site
from support.waiting import join, pause, until

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
LEASE = 1
PHASES = ["startup", "load", "prefill", "decode_compile", "decode", "output"]


def _both_are_idle(site: Site, *servers: RealServer) -> None:
    for server in servers:
        until(server.is_idle)
    until(lambda: site.processes() == [])  # a warm child waits a moment for more
    assert site.overlaps() == ""
    site.check_ledger()


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_frozen_in_this_phase_does_not_overwrite_what_another_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.03")
    site = Site(tmp_path)
    with site.serving(lease=LEASE) as frozen, site.serving(lease=LEASE, stop_grace=1) as other:
        run_id = frozen.submit("Hello")
        frozen.wait_for_event(run_id, phase=phase)
        frozen.freeze(site.ledger)
        run = other.ending(run_id)
        streamed = other.get(f"/runs/{run_id}/events").text
        assert (run["status"], run["response"]) == ("succeeded", "ok: Hello")
        frozen.thaw()
        pause(2)
        for server in (frozen, other):
            assert server.ending(run_id) == run
            assert server.get(f"/runs/{run_id}/events").text == streamed
        assert frozen.chat("and now?").json()["response"] == "ok: and now?"
        _both_are_idle(site, frozen, other)


@pytest.mark.parametrize("order", ["hang", "hang, deaf to SIGINT", "hang, deaf to SIGINT and SIGTERM"])
def test_the_child_of_a_frozen_server_is_ended_before_another_one_is_started(tmp_path: Path, order: str) -> None:
    site = Site(tmp_path)
    with site.serving(lease=LEASE) as frozen, site.serving(lease=LEASE, stop_grace=1) as other:
        run_id = frozen.submit(order)
        frozen.wait_for_event(run_id, phase="decode_compile")
        until((site.home / f"done: {order}").exists)
        frozen.freeze(site.ledger)
        run = other.ending(run_id)
        assert (run["status"], run["response"], run["attempts"]) == ("succeeded", f"ok: {order}", 2)
        frozen.thaw()
        pause(2)
        assert frozen.ending(run_id) == run
        _both_are_idle(site, frozen, other)


def test_a_server_that_thaws_while_another_ones_child_runs_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.1")
    site = Site(tmp_path)
    with site.serving(lease=LEASE) as frozen, site.serving(lease=LEASE, stop_grace=1) as other:
        run_id = frozen.submit("Hello")
        frozen.wait_for_event(run_id, phase="prefill")
        frozen.freeze(site.ledger)
        other.wait_for_event(run_id, attempt=2)
        frozen.thaw()
        run = other.ending(run_id)
        assert (run["status"], run["response"], run["attempts"]) == ("succeeded", "ok: Hello", 2)
        _both_are_idle(site, frozen, other)


def test_a_server_frozen_while_it_writes_makes_others_wait_and_nothing_worse(tmp_path: Path) -> None:
    site = Site(tmp_path)
    enough = threading.Event()

    def submit() -> None:
        while not enough.is_set():
            frozen.submit("busy")

    with site.serving(max_queue=1000) as frozen, site.serving(max_queue=1000) as other:
        submitting = threading.Thread(target=submit)
        submitting.start()
        frozen.freeze(site.ledger, while_it_writes=True)
        enough.set()
        assert other.get("/health", seconds=2).status_code == 200
        refused = other.chat("Hello")
        assert (refused.status_code, refused.json()["code"]) == (503, "ledger_unavailable")
        assert other.get("/runs?limit=1", seconds=2).status_code == 200
        frozen.thaw()
        join(submitting)
        assert other.chat("Hello").json()["response"] == "ok: Hello"
        assert frozen.chat("Hello").json()["response"] == "ok: Hello"
        _both_are_idle(site, frozen, other)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("warm", ["off", "model"])
@pytest.mark.parametrize("seed", [SEED, SEED + 1], ids=lambda seed: f"seed {seed}")
def test_two_servers_frozen_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, warm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.01")
    site = Site(tmp_path)
    chance = random.Random(seed)
    settings = {"lease": LEASE, "stop_grace": 1, "max_queue": 1000, "max_batch": 2, "warm": warm, "warm_idle": 2}
    accepted: list[str] = []
    with site.serving(**settings) as one, site.serving(**settings) as two:
        for number in range(20):
            accepted += [chance.choice([one, two]).submit(f"round {number}, run {n}") for n in range(3)]
            pause(chance.uniform(0, 1))
            server = chance.choice([one, two])
            server.process.send_signal(signal.SIGSTOP)
            pause(chance.uniform(1, 3))
            server.thaw()
        endings = [two.ending(run_id) for run_id in accepted]
        for run in endings:
            if run["status"] == "succeeded":
                assert run["response"] == f"ok: {run['prompt']}"
            else:
                assert (run["code"], run["attempts"]) == ("child_lost", 3)
        _both_are_idle(site, one, two)
    with capsys.disabled():
        attempts = [sum(run["attempts"] == n for run in endings) for n in (1, 2, 3)]
        print(f" {len(endings)} runs: {attempts} needed 1, 2, 3 attempts;", end="")
