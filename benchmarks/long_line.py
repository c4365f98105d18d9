"""How quickly runs are claimed when many wait: this checkout against another one, in turns.

    python benchmarks/long_line.py [OTHER_CHECKOUT [POSTGRESQL_URL]]

The ledger is filled with runs that all differ in their sampling, so that each is a batch of its own. Then they are
claimed, one after another, with all that a claim writes. Nothing is run. Without a URL it is SQLite in a temporary
folder. A PostgreSQL database is emptied first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import OTHER, report

HERE = Path(__file__).parents[1]
WAITING = (10, 1000, 10_000)
CLAIMS = 20
SECONDS = 20.0
"""After so long no more are claimed."""


def main() -> None:
    other = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    url = sys.argv[2] if len(sys.argv) > 2 else ""
    for waiting in WAITING:
        theirs = [in_checkout(other, waiting, url)] if other else []
        report(
            f"{waiting:,} runs waiting, {'PostgreSQL' if url else 'SQLite'}",
            [in_checkout(HERE, waiting, url)],
            "claims/s",
            beside=OTHER if other else "",
            theirs=theirs,
            more_is_better=True,
        )


def in_checkout(checkout: Path, waiting: int, url: str) -> float:
    """Claims a second, measured by a process that imports this checkout."""
    with tempfile.TemporaryDirectory(prefix="long-line-") as folder:
        command = [sys.executable, __file__, "--measure", str(waiting), folder, url]
        environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def measure(waiting: int, folder: str, url: str) -> float:
    from demo_api.config import Settings
    from demo_api.messages import Request
    from demo_api.queue import Ledger

    if url:
        _empty(url)
    settings = Settings.load({"state_dir": folder, "database_url": url or None}, {})
    ledger = Ledger(settings.model_copy(update={"max_queue": 20_000, "max_batch": 1}))
    requests = [Request(prompt="Hello", max_tokens=1 + number % 2048, seed=number) for number in range(waiting)]
    for first in range(0, waiting, 1000):
        ledger.queue.submit(requests[first : first + 1000])
    # A checkout of before November 27 told every waiting run its position after a claim.
    announce = getattr(ledger.queue, "announce_positions", lambda: None)
    began, claimed = time.perf_counter(), 0
    while claimed < min(CLAIMS, waiting) and time.perf_counter() - began < SECONDS:
        if ledger.queue.claim("device", list) is None:
            raise RuntimeError("nobody waits")
        announce()
        claimed += 1
    return claimed / (time.perf_counter() - began)


def _empty(url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE")
        connection.execute("CREATE SCHEMA public")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        count, folder, url = sys.argv[2:]
        print(measure(int(count), folder, url))
    else:
        main()
