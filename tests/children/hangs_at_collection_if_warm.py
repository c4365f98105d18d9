"""Answers as it should, but while it is collected a child that was started ahead never comes to an end."""

import json
import os
import time
from pathlib import Path

import demo_lines
from loguru import logger

if json.loads(Path(os.environ["DEMO_API_CHILD"]).read_text()).get("waits"):
    time.sleep(600)


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
