"""Runs the benchmarks one after another, and writes what they found into docs/performance.md.

    python benchmarks/all.py [--page] [NAME ...]

One that fails is a row that says so, and the others go on. With names, only those are run and their table is printed:
it is written into the page with ``--page``, where the others keep what they last found on this machine, as it is in
build/benchmarks. At the end, the exit code is 1 if one has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from figures import VARIABLE, Figure
from performance_page import Measured, table, write

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build/benchmarks"
PAGE = ROOT / "docs/performance.md"
NAMES = (
    "overhead",
    "startup",
    "warm",
    "like_hardware",
    "throughput",
    "direct",
    "busy_machine",
    "pipe",
    "long_line",
    "routes",
    "growth",
    "many_hosts",
    "full_lab",
    "burst",
    "looking",
    "at_rest",
)
LONGEST_SECONDS = 1800.0
"""A benchmark that takes longer has failed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the benchmarks.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md also if only some are run")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    names, machine = given.names or NAMES, describe_machine()
    print(machine, flush=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names:
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        found[name] = measure(ROOT, f"benchmarks/{name}.py", machine)
        (KEPT / f"{name}.json").write_text(json.dumps(asdict(found[name])), encoding="utf-8")
        print(f"== {name} took {time.monotonic() - began:.0f} s {found[name].failed}", flush=True)
    print(f"\n{table([*found.values()])}")
    if given.page or not given.names:
        write(PAGE, [kept(name) for name in NAMES])
    return int(any(each.failed for each in found.values()))


def measure(root: Path, script: str, machine: str) -> Measured:
    """What a benchmark finds; what it found before it failed, if it fails."""
    command = command_of(root / script)
    argv = ["env", *(sys.executable if word == "python" else word for word in command.split())]
    with tempfile.TemporaryDirectory() as folder:
        lines, errors = Path(folder) / "figures", Path(folder) / "errors"
        lines.touch()
        with errors.open("w") as said:
            process = subprocess.Popen(argv, cwd=root, env=os.environ | {VARIABLE: str(lines)}, stderr=said)
            late = not _ends(process, LONGEST_SECONDS)
            if late:
                process.send_signal(signal.SIGINT)  # it ends its servers
                if not _ends(process, 60):
                    process.kill()
                    process.wait()
        text = errors.read_text(encoding="utf-8", errors="replace")
        sys.stderr.write(text)
        figures = [Figure(**json.loads(line)) for line in lines.read_text(encoding="utf-8").splitlines()]
    failed = f"it took longer than {LONGEST_SECONDS:g} s" if late else ""
    if process.returncode and not late:
        failed = (text.strip().splitlines() or [f"exit code {process.returncode}, without a word"])[-1]
        failed = failed.replace(f"{root}/", "")
    return Measured(command, machine, figures, failed)


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def command_of(script: Path) -> str:
    """How a benchmark is called, as its own text says, without what may be left out."""
    found = re.search(r"^ *((?:PYTHONPATH=tests )?python benchmarks/\w+\.py)", script.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise ValueError(f"{script} does not say how it is called")
    return found[1]


def kept(name: str) -> Measured:
    """What a benchmark last found on this machine."""
    file = KEPT / f"{name}.json"
    if not file.exists():
        return Measured(command_of(ROOT / f"benchmarks/{name}.py"))
    fields = json.loads(file.read_text(encoding="utf-8"))
    return Measured(**{**fields, "figures": [Figure(**figure) for figure in fields["figures"]]})


def describe_machine() -> str:
    """The machine at this moment, in a line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    information = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)", information.read_text(), re.M) if information.exists() else []
    kernel = platform.release().partition("-")[0]
    return (
        f"{cores} cores of {names[0] if names else platform.machine()}, {platform.system()} {kernel}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the start, "
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    )


if __name__ == "__main__":
    sys.exit(main())
