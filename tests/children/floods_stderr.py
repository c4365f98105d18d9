"""Prints a gigabyte to stderr, as fast as it can."""

import os

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        if message == "Starting decode loop...":
            block = b"flood stderr " * 2**15
            for _ in range(2**30 // len(block)):
                os.write(2, block)
