"""Answers and passes; then the device cannot be closed."""

import demo_lines
import pytest
from loguru import logger


@pytest.fixture
def mesh_device():
    yield
    raise RuntimeError("TT_THROW @ device.cpp:880: Timeout (10000 ms) waiting for physical cores to finish: 25-17.")


@demo_lines.cases
def test_demo_text(request, batch_size, mesh_device):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
