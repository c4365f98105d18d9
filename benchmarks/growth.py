"""How quick the server stays when it keeps many runs: the same requests beside 10, 1,000 and 10,000 ended runs.

    python benchmarks/growth.py

Each run has an answer of 40 words and ten events, so there are 100,000 events at the most. They are written as a server
writes them, and then a server is started on them. ``GET /`` is the page; its list of runs asks for ``GET /runs``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from burst import HERE, serving
from figures import report
from routes import rate

KEPT = (10, 1000, 10_000)
EVENTS = 10
BATCH = 10
ROUTES = {
    "GET /runs?limit=20": "/runs?limit=20",
    "GET /runs/{first}": "/runs/{first}",
    "GET /runs/{last}/events": "/runs/{last}/events",
    "GET /health": "/health",
    "GET /": "/",
}


def main() -> None:
    found: dict[int, dict[str, float]] = {}
    for kept in KEPT:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            filled = subprocess.run(
                [sys.executable, __file__, "--fill", str(kept), folder],
                cwd=HERE,
                capture_output=True,
                text=True,
                check=True,
            )
            first, last = filled.stdout.split()
            with serving(HERE, f"--state-dir={folder}", "--keep-runs=100000", "--warm=off") as port:
                rates = {name: rate(port, "GET", path.format(first=first, last=last)) for name, path in ROUTES.items()}
        found[kept] = rates
        shown = ", ".join(f"{name} {rate:.0f} /s" for name, rate in rates.items())
        print(f"{kept:6} runs kept: {shown}", flush=True)
    least, *others = KEPT
    for name in ROUTES:
        for kept in others:
            ours, theirs = [found[kept][name]], [found[least][name]]
            what = f"{name}, {kept:,} runs kept"
            report(what, ours, "requests/s", beside=f"{least} kept", theirs=theirs, more_is_better=True)


def fill(kept: int, folder: str) -> None:
    """Makes a ledger in which so many runs have ended. Prints the first one's id, and the last one's."""
    from demo_api.config import Settings
    from demo_api.messages import Answer, Event, Request, Result
    from demo_api.queue import Ledger

    ledger = Ledger(Settings.load({"state_dir": folder, "keep_runs": 100_000, "max_batch": BATCH}, {}))
    ids = []
    for first in range(0, kept, BATCH):
        requests = [Request(prompt=f"What is {number}+{number}?") for number in range(first, first + BATCH)]
        ids += [run.run_id for run in ledger.queue.submit(requests)]
        batch = ledger.queue.claim("device", list)
        if batch is None or len(batch.runs) != BATCH:
            raise RuntimeError("not all were taken")
        # With queued, started and done, they are ten.
        events = [Event("text", None, {"added": "four words more, and "}) for _ in range(EVENTS - 3)]
        ledger.queue.append_events(batch.batch_id, {run.run_id: events for run in batch.runs})
        answer = Answer("four words more, and " * 10, 50)
        ledger.queue.finish(batch.batch_id, [Result(run.run_id, answer=answer) for run in batch.runs], 1.0)
    print(ids[0], ids[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        fill(int(sys.argv[2]), sys.argv[3])
    else:
        main()
