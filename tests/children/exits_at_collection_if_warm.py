"""Answers as it should, but while it is collected a child that was started ahead leaves, and leaves a note of that."""

import json
import os
from pathlib import Path

import demo_lines
from loguru import logger

if json.loads(Path(os.environ["DEMO_API_CHILD"]).read_text()).get("waits"):
    with open("attempts", "a") as notes:
        notes.write("warm\n")
    os._exit(42)


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
