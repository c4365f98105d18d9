"""Schemathesis against a server: whatever its OpenAPI document allows, and what it does not allow."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.prefix) / "schemathesis" / "bin" / "schemathesis"


@dataclass(frozen=True)
class Asked:
    """What became of it.

    Attributes:
        report: Schemathesis's own words, with the request to repeat each failure.
        cases: how many requests were made.
    """

    found_nothing: bool
    report: str
    cases: int


def ask(url: str, *, examples: int, seed: int, only: str | None = None, timeout: float = 250) -> Asked:
    """Asks a server, with every check.

    Args:
        examples: how many requests are made up for each operation, beside those that go through its schema.
        only: an operation id.
        timeout: seconds.
    """
    if sys.version_info < (3, 11):
        pytest.skip("Schemathesis needs Python 3.11")
    assert SCHEMATHESIS.exists(), "make .venv/installed-dev installs it, in an environment of its own"
    command = [SCHEMATHESIS, "--config-file", "schemathesis.toml", "run", f"{url}/openapi.json"]
    command += [
        "--max-examples",
        str(examples),
        "--seed",
        str(seed),
        *(["--include-operation-id", only] if only else []),
    ]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=timeout, check=False)
    report = done.stdout + done.stderr
    cases = re.search(r"^ *(\d+) generated", report, re.M)
    return Asked(done.returncode == 0 and "No issues found" in report, report, int(cases[1]) if cases else 0)
