"""Answers, passes, and leaves a daemon behind (``daemon.pid``): a session of its own, no parent, deaf to SIGTERM."""

import subprocess
import sys

import demo_lines
from loguru import logger

DAEMON = """
import os, signal, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    time.sleep(600)
with open("daemon.pid", "w") as file:
    file.write(str(pid))
os._exit(0)
"""


@demo_lines.cases
def test_demo_text(request, batch_size):
    subprocess.run([sys.executable, "-c", DAEMON], check=True)
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
