"""Many clients at once, and many cancels: everybody gets a clear answer, and /health still answers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.real_server import RealServer, Site
from support.waiting import at_once, pause, until

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
SUPPORT = Path(__file__).parents[1] / "support"
CLIENTS = 500
MAX_QUEUE = 100
STORM = 30


@contextmanager
def _polled(server: RealServer) -> Iterator[list[dict[str, float]]]:
    """/health is asked all of the time; the list is filled at the end of the block."""
    command = [sys.executable, str(SUPPORT / "poller.py"), server.url.rsplit(":", 1)[1]]
    answers: list[dict[str, float]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield answers
            answers += json.loads(process.communicate(timeout=90)[0])
        finally:
            process.kill()


def _figures(answers: list[dict[str, float]], name: str = "seconds") -> str:
    ordered = sorted(each[name] * 1000 for each in answers)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {ordered[-1]:.1f} ms of {len(ordered)}"


@pytest.mark.timeout(600)
def test_five_hundred_clients_are_answered_or_told_to_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path)
    with site.serving(max_queue=MAX_QUEUE) as server:
        assert server.chat("Hello").status_code == 200
        with _polled(server) as idle:
            pause(5)
        with _polled(server) as crowded:
            command = [sys.executable, str(SUPPORT / "crowd.py"), server.url.rsplit(":", 1)[1], str(CLIENTS)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        answers = json.loads(done.stdout)
        assert len(answers) == CLIENTS
        for answer in answers:
            if answer["status"] == 200:
                assert answer["body"]["response"] == f"ok: client {answer['client']}"
            else:
                assert (answer["status"], answer["body"]["success"]) == (503, False)
                assert answer["body"]["code"] in ("queue_full", "too_many_waiting")
                assert int(answer["retry_after"]) >= 1
        assert sum(answer["status"] == 200 for answer in answers) >= MAX_QUEUE
        assert {each["status"] for each in idle + crowded} == {200}
        until(server.is_idle)
        assert server.chat("and now?").json()["response"] == "ok: and now?"
        assert site.processes() == []
    assert site.overlaps() == ""
    refused = max(answer["seconds"] for answer in answers if answer["status"] == 503)
    last = max(answer["seconds"] for answer in answers)
    coming = [each for each in crowded if each["at"] < refused + 0.5]
    waiting = [each for each in crowded if each["at"] >= refused + 0.5]
    with capsys.disabled():
        print()
        print(f"  answers: {dict(Counter(str(answer['status']) for answer in answers))}; ", end="")
        print(f"the last refusal after {refused:.2f} s, the last answer after {last:.2f} s")
        print(f"  /health of an idle server: {_figures(idle)}")
        print(f"  /health in a crowd of {CLIENTS}: {_figures(crowded)}")
        print(f"  - while they come and are refused: {_figures(coming)}")
        print(f"  - while the others wait: {_figures(waiting)}")
        print(f"  what the asking process was late by itself: {_figures(crowded, 'late')};", end="")


@pytest.mark.parametrize("max_batch", [1, 4], ids=["one by one", "in batches"])
@pytest.mark.parametrize("seed", [SEED, SEED + 1], ids=lambda seed: f"seed {seed}")
def test_a_storm_of_cancels_ends_each_run_once(tmp_path: Path, seed: int, max_batch: int) -> None:
    site = Site(tmp_path)
    chance = random.Random(seed)
    refused: list[str] = []

    def cancel(run_id: str, seconds: float) -> Callable[[], None]:
        def action() -> None:
            pause(seconds)
            answer = server.post(f"/runs/{run_id}/cancel")
            assert answer.status_code in (200, 409), answer.text
            if answer.status_code == 409:
                refused.append(run_id)
            again = server.post(f"/runs/{run_id}/cancel")
            assert again.status_code == answer.status_code

        return action

    with site.serving(max_batch=max_batch) as server:
        run_ids = [server.submit(f"run {number}") for number in range(STORM)]
        unlucky = chance.sample(run_ids, STORM // 2)
        at_once(cancel(run_id, chance.uniform(0, 10)) for run_id in unlucky)
        for run_id in run_ids:
            expected = "cancelled" if run_id in unlucky and run_id not in refused else "succeeded"
            assert server.ending(run_id)["status"] == expected
        until(server.is_idle)
        assert server.device()["state"] == "free"
        assert site.processes() == []
        assert server.chat("and now?").json()["response"] == "ok: and now?"
        assert server.get("/health").json()["queue"] == {"waiting": 0, "running": 0, "limit": 32}
    assert site.overlaps() == ""
    site.check_ledger()


def test_runs_cancelled_in_the_moment_of_their_submission_end_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving() as server:
        run_ids: list[str] = []
        lock = threading.Lock()

        def submit_and_cancel() -> None:
            run_id = server.submit("Hello")
            server.post(f"/runs/{run_id}/cancel")
            with lock:
                run_ids.append(run_id)

        for _ in range(10):
            at_once([submit_and_cancel] * 3)
        for run_id in run_ids:
            assert server.ending(run_id)["status"] in ("cancelled", "succeeded")
        until(server.is_idle)
        assert site.processes() == []
        assert server.chat("and now?").json()["response"] == "ok: and now?"
    assert site.overlaps() == ""
