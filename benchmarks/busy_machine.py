"""How fast the CPU edition reads a prompt and answers, on a quiet machine and beside as many busy loops as it has CPUs.

    python benchmarks/busy_machine.py [ROUNDS]

The two ways of waiting take turns: how the CPU edition's threads wait for each other (GOMP_SPINCOUNT), and how those of
OpenMP do by default. Each run is a cold ``demo-api run`` of one long prompt; the seconds are those of its own
``timing``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from figures import report

PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 35
TOKENS = 32
PARTS = {"prefill_seconds": "reading a long prompt", "decode_seconds": f"{TOKENS} tokens"}
WAYS = {"": {}, ", with OpenMP's way of waiting": {"GOMP_SPINCOUNT": "300000"}}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    loops = len(os.sched_getaffinity(0))
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, number in (("quiet", 0), ("busy", loops)):
            with busy_loops(number):
                for way, environ in WAYS.items():
                    found.setdefault((name, way), []).append(run(environ))
                    print(f"{name}{way}: {found[name, way][-1]}", flush=True)
    for way in WAYS:
        for part, what in PARTS.items():
            busy, quiet = ([one[part] for one in found[name, way]] for name in ("busy", "quiet"))
            what = f"{what} beside {loops} busy loops{way}"
            report(what, busy, "s", beside="without them", theirs=quiet, ratio_goal=None if way else 3.0)


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Programs that want a CPU each, for the time of the block."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(environ: dict[str, str]) -> dict[str, float]:
    """The seconds of one run's parts."""
    command = [sys.executable, "-m", "demo_api", "run", "--json", f"--max-tokens={TOKENS}", PROMPT]
    done = subprocess.run(command, env=os.environ | environ, stdout=subprocess.PIPE, check=True, timeout=600)
    timing = json.loads(done.stdout)["timing"]
    return {part: timing[part] for part in PARTS}


if __name__ == "__main__":
    main()
