"""Lays out the stand-in checkouts of ``tests/standins``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

STANDINS = Path(__file__).parents[1] / "standins"
SITE = STANDINS / "site"
GENERATIONS = ("2025", "2026", "2026-late")


def make_checkout(path: Path, generation: str) -> Path:
    """Lays out a stand-in checkout. ``2026-late`` is 2026 with another generator."""
    shutil.copytree(STANDINS / generation.removesuffix("-late"), path)
    shutil.copytree(STANDINS / generation, path, dirs_exist_ok=True)
    return path


def make_bare_environment(path: Path, python: str = sys.executable) -> Path:
    """Makes a virtual environment that has the stand-ins of torch and ttnn, and nothing else: not even pip."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(path)], check=True, timeout=100)
    (packages,) = path.glob("lib/python*/site-packages")
    for module in SITE.glob("*.py"):
        shutil.copyfile(module, packages / module.name)
    return path
