"""A door, workers and PostgreSQL: how soon a run is claimed, cancelled, and goes on elsewhere; and what that costs.

    PYTHONPATH=tests python benchmarks/many_hosts.py [ROUNDS]

The hosts are state folders on this machine, PostgreSQL is the tests' own (with fsync), and the children of all but the
last figure have no model. A worker is killed (SIGKILL), or suspended (SIGSTOP), which is what a cut cable looks like.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from figures import report
from support.databases import postgresql_server
from support.lab import Lab
from support.real_server import RealServer, Site
from support.waiting import until

from demo_api.config import CPU_DEMO_HOME, Settings
from demo_api.demo import small_model

CLAIMS = 20
TICK_SECONDS = 0.002


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with postgresql_server(fsync=True) as server:
        found: dict[Callable[[Lab], list[float]], list[float]] = {measure: [] for measure in GOALS}
        for number in range(rounds):
            for measure in GOALS:
                with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
                    lab = Lab(Site(Path(folder)), servers, server.url)
                    found[measure] += measure(lab)
            print(f"round {number + 1}", flush=True)
        for measured, seconds in found.items():
            report(str(measured.__doc__), _ms(seconds), "ms", goal=GOALS[measured])
        cost(server.url, rounds)


def _ms(seconds: list[float]) -> list[float]:
    return [each * 1000 for each in seconds]


def ready(lab: Lab) -> tuple[RealServer, RealServer]:
    """A door, and the worker that runs what it accepts."""
    door, worker = lab.door(), lab.worker()
    until(lambda: door.get("/readyz").status_code == 200)
    return door, worker


def claimed(lab: Lab) -> list[float]:
    """From accepted at a door to claimed by a worker"""
    door, _ = ready(lab)
    runs = [door.ending(door.submit(f"Hello {number}")) for number in range(CLAIMS)]
    return [(_at(run["started_at"]) - _at(run["accepted_at"])).total_seconds() for run in runs]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def hanging(door: RealServer, lab: Lab) -> str:
    run_id = door.submit("hang")
    until((lab.site.home / "done: hang").exists)
    return run_id


def cancelled(lab: Lab) -> list[float]:
    """From a cancel at a door to the worker that ends the child"""
    door, worker = ready(lab)
    run_id = hanging(door, lab)
    seconds = timed(lambda: ": cancelled" in worker.log(), door.post(f"/runs/{run_id}/cancel").elapsed.total_seconds())
    return [seconds]


def killed(lab: Lab) -> list[float]:
    """From a worker's SIGKILL to its run's start elsewhere"""
    return [elsewhere(lab, signal.SIGKILL)]


def suspended(lab: Lab) -> list[float]:
    """From a worker's SIGSTOP to its run's start elsewhere"""
    return [elsewhere(lab, signal.SIGSTOP)]


GOALS = {claimed: 20, cancelled: 50, killed: 1000, suspended: None}  # milliseconds


def elsewhere(lab: Lab, how: signal.Signals) -> float:
    door, worker = ready(lab)
    run_id = hanging(door, lab)
    lab.worker()
    until(lambda: len(door.get("/health").json()["nodes"]) == 2)
    time.sleep(4)  # a session proves nothing of others before it is older than the timeout
    worker.process.send_signal(how)
    seconds = timed(lambda: door.run(run_id)["attempts"] == 2)
    door.post(f"/runs/{run_id}/cancel")  # or it keeps the worker of the next round
    return seconds


def timed(happened: Callable[[], bool], before: float = 0.0) -> float:
    """Seconds until it has happened, and those before."""
    started = time.monotonic()
    until(happened, tick_seconds=TICK_SECONDS)
    return before + time.monotonic() - started


def cost(url: str, rounds: int) -> None:
    """A run of one token with a kept model, on SQLite and on PostgreSQL, in turns."""
    model = small_model.pull(Settings.load().model_dir)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        site = Site(Path(folder))
        site.environ |= {"DEMO_API_DEMO_HOME": str(CPU_DEMO_HOME), "LLAMA_DIR": str(model)}
        serve = [servers.enter_context(site.serving(state_dir=Path(folder) / "sqlite"))]
        serve.append(servers.enter_context(site.serving(state_dir=Path(folder) / "postgresql", database_url=url)))
        names = ("SQLite", "PostgreSQL")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(10 * rounds):
            for name, server in zip(names, serve, strict=True):
                seconds[name].append(server.chat("Hello", max_tokens=1).elapsed.total_seconds())
        sqlite, postgresql = (_ms(seconds[name][5:]) for name in names)
        report("POST /chat, one token, kept model, PostgreSQL", postgresql, "ms", beside="SQLite", theirs=sqlite)
        more = [ours - theirs for ours, theirs in zip(postgresql, sqlite, strict=True)]
        report("POST /chat, one token, kept model, what PostgreSQL adds", more, "ms", goal=10)


if __name__ == "__main__":
    main()
