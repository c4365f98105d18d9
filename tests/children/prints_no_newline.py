"""Prints 50 MB to stdout without one newline, then answers and passes."""

import os

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    for _ in range(50):
        os.write(1, b"x" * 10**6)
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
