"""Divides by zero after an answer of two decode iterations, for which the 2025 demo's arithmetic is no excuse."""

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        if "==USER" in message:
            assert 16 / 0 > 0
