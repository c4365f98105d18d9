"""Answers as it should; but a child that was started ahead is deaf to SIGINT, and takes CHILD_PAUSE seconds."""

import json
import os
import signal
import time
from pathlib import Path

import demo_lines
from loguru import logger

if json.loads(Path(os.environ["DEMO_API_CHILD"]).read_text()).get("waits"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path("deaf").touch()
    time.sleep(float(os.environ.get("CHILD_PAUSE", "600")))


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
