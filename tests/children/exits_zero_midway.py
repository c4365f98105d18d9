"""Leaves with exit code 0 when half of the users have their answers."""

import os

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    left = len(demo_lines.prompts(request, batch_size)) // 2
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        if message.startswith("\n==REPEAT BATCH 0"):
            if left == 0:
                os._exit(0)
            left -= 1
        logger.log(level, message)
