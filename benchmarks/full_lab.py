"""A lab with a full queue: 1,000 runs of one token, two doors, three workers; and how far one queue's lock carries.

    PYTHONPATH=tests python benchmarks/full_lab.py [RUNS]

First without children: processes claim runs that all differ, one and then three at once; then two processes submit runs
at once, for one model and for two. Then the whole: both doors accept while three workers, with the CPU edition, answer
in batches; they go on for a minute, while somebody looks. PostgreSQL is the tests' own, with fsync.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import requests
from figures import report
from support.databases import in_processes, postgresql_server
from support.lab import Lab
from support.real_server import RealServer, Site
from support.waiting import at_once, until

from demo_api.config import CPU_DEMO_HOME, Settings
from demo_api.demo import small_model
from demo_api.messages import Request, Result
from demo_api.queue import Ledger

SECONDS = 10.0
CLIENTS = 8
LOOK_SECONDS = 60.0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with postgresql_server(fsync=True) as server:
        one, three = (claimed(server.url, workers, count) for workers in (1, 3))
        what = f"claimed and finished by 3 workers, {count:,} runs waiting, PostgreSQL"
        report(what, [three], "runs/s", beside="by one", theirs=[one], more_is_better=True)
        for_one, for_two = (submitted(server.url, models) for models in (1, 2))
        what = "accepted for two models, by two doors at once, PostgreSQL"
        report(what, [for_two], "runs/s", beside="for one model", theirs=[for_one], more_is_better=True)
        with fresh(server.url) as url:
            whole(url, count)


@contextmanager
def fresh(url: str) -> Iterator[str]:
    """A database that has nothing in it, until the end of the block."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA lab")
        yield f"{url}&options=-csearch_path%3Dlab"
        connection.execute("DROP SCHEMA lab CASCADE")


def ledger_of(url: str, folder: str) -> Ledger:
    settings = Settings.load({"state_dir": folder, "database_url": url}, {})
    return Ledger(settings.model_copy(update={"max_queue": 100_000, "max_batch": 1}))


def claimed(url: str, workers: int, count: int) -> float:
    """Runs a second that so many processes claim and finish, one by one."""
    with fresh(url) as own, tempfile.TemporaryDirectory() as folder:
        all_different = [Request(prompt="Hello", max_tokens=1, seed=number) for number in range(count)]
        ledger_of(own, folder).queue.submit(all_different)
        return sum(in_processes(workers, claim_for_some_seconds, own))


def claim_for_some_seconds(url: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        queue = ledger_of(url, folder).queue
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS and (batch := queue.claim("device", list)) is not None:
            queue.finish(batch.batch_id, [Result(run.run_id) for run in batch.runs], 1.0)
            done += 1
        return done / (time.perf_counter() - began)


def submitted(url: str, models: int) -> float:
    """Runs a second that two doors accept together."""
    with fresh(url) as own, tempfile.TemporaryDirectory() as folder:
        ledger_of(own, folder)  # makes the tables
        return sum(in_processes(2, submit_for_some_seconds, own, models))


def submit_for_some_seconds(url: str, models: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        queue = ledger_of(url, folder).queue
        pool = f"model {os.getpid() if models == 2 else 0}"
        request, ends, done = Request(prompt="Hello", max_tokens=1), time.perf_counter() + SECONDS, []

        def submit() -> None:
            while time.perf_counter() < ends:
                queue.submit([request], pool=pool)
                done.append(1)

        at_once([submit] * CLIENTS)
        return len(done) / SECONDS


def whole(url: str, count: int) -> None:
    model = small_model.pull(Settings.load().model_dir)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        site = Site(Path(folder))
        site.environ["DEMO_API_DEMO_HOME"] = str(CPU_DEMO_HOME)
        lab = Lab(site, servers, url)
        doors = [lab.door(max_queue=10_000) for _ in range(2)]
        (site.folder / model.name).symlink_to(model)
        workers = [lab.worker(model.name, warm="model") for _ in range(3)]
        until(lambda: all(len(door.get("/health").json()["nodes"]) == len(workers) for door in doors))
        look = Look(doors[0])
        per_client = count // (CLIENTS * len(doors))
        accepted: list[float] = []
        began = time.perf_counter()
        at_once([partial(submit_all, door, per_client, accepted) for door in doors for _ in range(CLIENTS)])
        rate = len(accepted) / (time.perf_counter() - began)
        report(f"{len(accepted):,} runs accepted by two doors", [rate], "runs/s")
        percentile("POST /runs of 16 clients meanwhile", accepted)
        began, waiting = time.perf_counter(), queue_of(doors[1])["waiting"]
        time.sleep(LOOK_SECONDS)
        gone = waiting - queue_of(doors[1])["waiting"]
        report("runs taken by three workers, CPU edition", [gone / (time.perf_counter() - began)], "runs/s")
        look.stop()
        for path, times in look.seconds.items():
            percentile(f"GET {path} of a door meanwhile", times)


def submit_all(door: RealServer, count: int, accepted: list[float]) -> None:
    with requests.Session() as session:
        for number in range(count):
            answer = session.post(f"{door.url}/runs", json={"prompt": f"Hello {number}", "max_tokens": 1}, timeout=60)
            answer.raise_for_status()
            accepted.append(answer.elapsed.total_seconds())


def queue_of(door: RealServer) -> dict[str, int]:
    queue: dict[str, int] = door.get("/health").json()["queue"]
    return queue


class Look:
    """Asks a door again and again, 20 times a second."""

    def __init__(self, door: RealServer) -> None:
        self.seconds: dict[str, list[float]] = {"/livez": [], "/health": [], "/runs?limit=20": []}
        self._door = door
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        with requests.Session() as session:
            while not self._stopped.wait(0.05):
                for path, found in self.seconds.items():
                    found.append(session.get(f"{self._door.url}{path}", timeout=60).elapsed.total_seconds())


def percentile(what: str, seconds: list[float]) -> None:
    report(f"{what}, 99th percentile", [statistics.quantiles(seconds, n=100)[98] * 1000], "ms")


if __name__ == "__main__":
    main()
