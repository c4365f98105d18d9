"""What a server needs while nobody asks: memory, threads, wake-ups; and how long ``--version`` takes.

python benchmarks/at_rest.py [OTHER_CHECKOUT]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from burst import HERE, serving
from figures import OTHER, report

SECONDS = 5.0
REST_SECONDS = 35.0  # threads that nobody needs end after 30
TIMES = 5
UNITS = {"memory of the server's process": "MiB", "threads": "", "wake-ups": "a second", "demo-api --version": "s"}
GOALS = {"memory of the server's process": 60, "wake-ups": 100, "demo-api --version": 0.15}


def main() -> None:
    other = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    found: dict[Path, dict[str, list[float]]] = {}
    for checkout in filter(None, (other, HERE)):
        with serving(checkout) as port:
            server = psutil.Process(next(each.pid for each in psutil.net_connections() if _listens(each, port)))
            time.sleep(REST_SECONDS)
            before = wake_ups(server.pid)
            time.sleep(SECONDS)
            wakes = (wake_ups(server.pid) - before) / SECONDS
            mib = server.memory_info().rss / 2**20
            threads = server.num_threads()
        measured = ([mib], [float(threads)], [wakes], version_seconds(checkout))
        found[checkout] = dict(zip(UNITS, measured, strict=True))
    for name, ours in found[HERE].items():
        theirs = found[other][name] if other else []
        what = name if "--version" in name else f"at rest: {name}"
        report(what, ours, UNITS[name], beside=OTHER if other else "", theirs=theirs, goal=GOALS.get(name))


def _listens(each: object, port: int) -> bool:
    address = getattr(each, "laddr", None)
    return bool(address) and address.port == port and getattr(each, "status", "") == psutil.CONN_LISTEN


def wake_ups(pid: int) -> int:
    """How often its threads have waited until now."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found += int(status.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return found


def version_seconds(checkout: Path) -> list[float]:
    """How long each of some took."""
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        command = [sys.executable, "-m", "demo_api", "--version"]
        subprocess.run(
            command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
