"""50 MB of the worst that a child could print are read in little memory, whatever state the reader is in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.worst_output import WORST

MEGABYTES = 50
MOST_MEMORY = 128
"""Megabytes that the reader may grow by: a longest line, or the end of a plain log, a few times over."""
DEADLINE = 500


@pytest.mark.timeout(DEADLINE + 60)
@pytest.mark.parametrize("name", WORST)
def test_the_worst_output_is_read_in_little_memory(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "support.worst_output", name, str(MEGABYTES)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    took = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{took['seconds']:6.2f} s, {took['megabytes']:4} MB, longest hold {took['hold']:.2f} s: {name}")
    assert took["megabytes"] < MOST_MEMORY
