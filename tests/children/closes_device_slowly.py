"""Hangs; on SIGINT it takes a second to close the device, and says so in the file ``device_closed``."""

import time
from pathlib import Path

import demo_lines
import pytest
from loguru import logger


@pytest.fixture
def mesh_device():
    yield
    time.sleep(1)
    Path("device_closed").write_text("closed")


@demo_lines.cases
def test_demo_text(request, batch_size, mesh_device):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        if message == "Starting decode loop...":
            time.sleep(600)
