"""Programs that the machine may not have: a test that needs one is skipped without it, or fails where all must run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

_REQUIRED = os.environ.get("DEMO_API_TEST_DEPLOY") == "required"  # now: no test sees it


def program(name: str, package: str) -> str:
    """The path of a program; skips the test if there is none.

    Args:
        package: Debian's, or the index's, that brings it.
    """
    beside_us = Path(sys.executable).parent / name
    found = str(beside_us) if beside_us.exists() else shutil.which(name)
    if found is None:
        (pytest.fail if _REQUIRED else pytest.skip)(f"there is no {name} on this machine: install {package}")
    return found
