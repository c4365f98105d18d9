"""Hangs, and neither SIGINT nor SIGTERM ends it."""

import signal
import time

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        if message == "Starting decode loop...":
            time.sleep(600)
