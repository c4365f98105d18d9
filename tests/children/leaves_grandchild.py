"""Answers, passes, and leaves a process behind (its number is in ``grandchild.pid``)."""

import subprocess
import sys
from pathlib import Path

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("grandchild.pid").write_text(str(grandchild.pid))
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
