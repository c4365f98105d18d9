"""Aborts in the decode loop, as C++ does on an uncaught exception."""

import os

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        if message == "Starting decode loop...":
            os.abort()
