"""Doors and workers on one PostgreSQL while workers are killed, suspended and cut off at random."""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest
from support.cutting_proxy import CuttingProxy
from support.databases import postgresql_server
from support.demo_homes import make_home
from support.lab import free_port
from support.real_server import SERVE, WORK, RealServer, Site
from support.waiting import pause, until

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
RUNS = 200
BLOWS = 25


class Host:
    """A worker with a state folder, a demo home (so a device) and a way to the database of its own."""

    def __init__(self, site: Site, servers: ExitStack, name: str, port: int) -> None:
        self.home = make_home(site.folder / f"home {name}", "obeys_its_prompt")
        self._site = site
        self._servers = servers
        self._state = site.folder / f"state {name}"
        self._proxy = CuttingProxy(f"http://127.0.0.1:{port}")
        servers.callback(self._proxy.close)
        self._url = f"postgresql://postgres@{self._proxy.url.removeprefix('http://')}/postgres"
        self.worker = self._start()

    def _start(self) -> RealServer:
        settings = {"state_dir": self._state, "database_url": self._url, "demo_home": self.home}
        common = {"warm": "off", "max_batch": 2, "stop_grace": 1, "lease": 600}
        return self._servers.enter_context(self._site.serving(WORK, **settings, **common))

    def strike(self, blow: str, seconds: float) -> None:
        """Does this to the worker, and lets it go on after so long."""
        if blow == "kill":
            self.worker.kill()
            pause(seconds)
            self.worker = self._start()
        elif blow == "suspend":
            self.worker.process.send_signal(signal.SIGSTOP)
            pause(seconds)
            self.worker.thaw()
        else:
            getattr(self._proxy, blow)()
            pause(seconds)
            self._proxy.mend()


@pytest.mark.timeout(1800)
def test_every_run_ends_once_whatever_happens_to_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHILD_PAUSE", "0.02")
    chance = random.Random(SEED)
    site, port = Site(tmp_path), free_port()
    with postgresql_server(port=port) as database, ExitStack() as servers:
        doors = [
            servers.enter_context(
                site.serving(
                    [*SERVE, "--no-devices"],
                    state_dir=tmp_path / f"door {n}",
                    database_url=database.url,
                    max_queue=1000,
                )
            )
            for n in range(2)
        ]
        hosts = [Host(site, servers, name, port) for name in ("one", "two", "three")]
        until(lambda: doors[0].get("/readyz").status_code == 200)
        accepted = {}
        for number, door in zip(range(RUNS), cycle(doors), strict=False):
            # Two at a time are alike, so that some go to a child together.
            accepted[door.submit(f"run {number}", max_tokens=20 + number // 2 % 50)] = f"ok: run {number}"
        blows: dict[str, int] = {}
        for _ in range(BLOWS):
            blow = chance.choice(["kill", "suspend", "cut", "stall"])
            chance.choice(hosts).strike(blow, chance.uniform(0.5, 6))
            blows[blow] = blows.get(blow, 0) + 1
            pause(chance.uniform(0, 2))
        ended = [doors[number % 2].ending(run_id) for number, run_id in enumerate(accepted)]
        for run in ended:
            if run["status"] != "failed" or run["code"] != "child_lost":  # as it may be after three blows
                assert (run["status"], run["response"]) == ("succeeded", accepted[run["run_id"]]), run
        lost = sum(run["status"] == "failed" for run in ended)
        again = sum(run["attempts"] > 1 for run in ended)
        assert lost <= RUNS // 20
        for host in hosts:
            assert not (host.home / "overlaps").exists()
    with capsys.disabled():
        print(f"\nseed {SEED}: {RUNS} runs, {blows}: {again} began more than once, {lost} were lost three times")
