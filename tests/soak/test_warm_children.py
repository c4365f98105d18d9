"""Warm children, killed at random moments: before, while and after they are handed a batch."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from threading import Timer

import psutil
import pytest
from support.real_server import RealServer, Site
from support.waiting import join, pause, until

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
REQUESTS = 200
MOMENTS = {
    "never": None,
    "while it waits": (-0.4, 0.0),
    "as it gets its batch": (0.0, 0.03),
    "while it runs": (0.03, 0.6),
}
"""When a child is killed: seconds after the request was sent, at most and at least."""


def _kill(site: Site) -> None:
    for process in site.processes():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("warm", ["imports", "model"])
def test_children_killed_at_random_moments_cost_nobody_more_than_their_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], warm: str
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.01")
    site, chance = Site(tmp_path), random.Random(SEED)
    ends: Counter[tuple[str, str]] = Counter()
    with site.serving(warm=warm, keep_runs=1000) as server:
        for number in range(REQUESTS):
            pause(chance.uniform(0.1, 1.0))  # mostly the next child is there by then
            moment = chance.choice([*MOMENTS, "never", "never"])
            span = MOMENTS[moment]
            at = chance.uniform(*span) if span else 0.0
            if moment == "while it waits":
                _kill(site)
                pause(-at)  # the server may have seen it, and may have started the next one
            killer = Timer(max(at, 0.0), _kill, (site,))
            if moment in ("as it gets its batch", "while it runs"):
                killer.start()
            answer = server.chat(f"run {number}")
            killer.cancel()
            body = answer.json()
            if answer.status_code == 200:
                assert body["response"] == f"ok: run {number}"
                ends[moment, body["timing"]["warm"]] += 1
            else:
                assert moment in ("as it gets its batch", "while it runs"), body
                assert (answer.status_code, body["code"]) == (500, "interrupted"), body
                ends[moment, "failed"] += 1
            if killer.is_alive():
                join(killer)
        until(server.is_idle)
        listed = [run for page in _pages(server) for run in page]
        assert len({run["prompt"] for run in listed}) == len(listed) == REQUESTS
        answered = (site.home / "answered").read_text().splitlines()
        assert len(answered) == len(set(answered)), "a prompt was answered twice"
    assert site.overlaps() == ""
    assert site.processes() == []
    site.check_ledger()
    assert sum(count for (_, how), count in ends.items() if how == warm) > REQUESTS / 4, ends
    with capsys.disabled():
        print(f" seed {SEED}: {dict(sorted(ends.items()))};", end="")


def _pages(server: RealServer) -> list[list[dict[str, object]]]:
    pages, query = [], "/runs?limit=200"
    for _ in range(REQUESTS):
        page = server.get(query).json()["runs"]
        if not page:
            return pages
        pages.append(page)
        query = f"/runs?limit=200&before={page[-1]['run_id']}"
    raise AssertionError("the pages have no end")
