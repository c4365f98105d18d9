"""Takes as long as a small model on a device: LOAD_SECONDS, COMPILE_SECONDS, then 50 ms of prefill for each user, and
20 ms for each decode step whatever the batch. A child that keeps its model loads and compiles once.
"""

import os
import time

import demo_lines
import pytest
from demo_lines import Generator
from loguru import logger

LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "20"))
COMPILE_SECONDS = float(os.environ.get("COMPILE_SECONDS", "2"))
PREFILL_SECONDS = 0.05
DECODE_SECONDS = 0.02


def create_tt_model(mesh_device, max_batch_size, max_seq_len):
    time.sleep(LOAD_SECONDS)
    return demo_lines.create_tt_model(mesh_device, max_batch_size, max_seq_len)


@pytest.fixture
def mesh_device(request, batch_size):
    yield object()
    logger.debug("closed")


@demo_lines.cases
def test_demo_text(request, batch_size, mesh_device):
    inputs = demo_lines.prompts(request, batch_size)
    for level, message in demo_lines.run(request, batch_size, lambda prompt: "word " * 64):
        logger.log(level, message)
        if message == "Reading inputs...":
            sequence = request.config.getoption("--max_seq_len")
            args, model, _, _ = create_tt_model(mesh_device, max_batch_size=len(inputs), max_seq_len=sequence)
            generator = Generator([model], [args], mesh_device)
        elif message == "Starting prefill warmup..." and not generator.model[0].runs:
            time.sleep(COMPILE_SECONDS)
            generator.model[0].runs = 1
        elif message == "Starting prefill...":
            time.sleep(PREFILL_SECONDS * len(inputs))
        elif message.startswith("Iteration "):
            time.sleep(DECODE_SECONDS)
