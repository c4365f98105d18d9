"""The demo for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cpu_demo import Demo


@pytest.fixture
def demo(tmp_path: Path, model_dir: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path, model_dir)
    yield demo
    for child in demo.children:
        child.kill()  # nothing, where it has ended as it should
        child.wait(30)
