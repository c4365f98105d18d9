"""Answers as it should; but a child that was started ahead says that it waits, and never reads what it is sent."""

import json
import os
from pathlib import Path

import demo_api_control
import demo_lines
from loguru import logger

if json.loads(Path(os.environ["DEMO_API_CHILD"]).read_text()).get("waits"):
    demo_api_control._control, writer = os.pipe()


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
