"""Prints to stdout after pytest's summary, as tt-metal's C++ does when the device is closed."""

import atexit
import os

import demo_lines
from loguru import logger

CLOSING = """\
2026-11-22 02:20:50.092 | info     |           Metal | Closing mesh device 0 (mesh_device.cpp:800)
2026-11-22 02:20:50.093 | info     |          Device | Closing user mode device drivers (tt_cluster.cpp:563)
2026-11-22 02:20:50.093 | info     |             UMD | Closing devices in cluster completed. (cluster.cpp:1479)
"""


@demo_lines.cases
def test_demo_text(request, batch_size):
    atexit.register(os.write, 1, CLOSING.encode())
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
