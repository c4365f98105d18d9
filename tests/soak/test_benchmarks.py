"""Every benchmark runs, as far as this machine has what it measures against."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HELPERS = {"all.py", "figures.py", "performance_page.py"}
ONE_ROUND = {
    "overhead.py": "1",
    "startup.py": "1",
    "warm.py": "1",
    "like_hardware.py": "1",
    "throughput.py": "1 1",
    "direct.py": "1",
    "busy_machine.py": "1",
    "pipe.py": "1",
    "long_line.py": "",
    "routes.py": "",
    "growth.py": "",
    "many_hosts.py": "1",
    "burst.py": "",
    "looking.py": "",
    "at_rest.py": "",
}


def test_each_benchmark_is_run_here() -> None:
    assert set(ONE_ROUND) == {path.name for path in BENCHMARKS.glob("*.py")} - HELPERS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ONE_ROUND)
def test_a_benchmark_runs(name: str) -> None:
    command = [sys.executable, BENCHMARKS / name, *ONE_ROUND[name].split()]
    environ = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent / "tests")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if "is not installed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout)  # it measured something
