"""Answers as it should; but a child that was started ahead leaves by itself soon after it has begun to wait."""

import json
import os
import threading
from pathlib import Path

import demo_lines
from loguru import logger

IS_WARM = bool(json.loads(Path(os.environ["DEMO_API_CHILD"]).read_text()).get("waits"))
if IS_WARM:
    with open("attempts", "a") as attempts:
        attempts.write("warm\n")
    leaver = threading.Timer(0.5, os._exit, (3,))
    leaver.daemon = True
    leaver.start()


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
