"""Does what its prompt says, the first time; after that, and for every other prompt, it answers and passes.

It loads a model as tt-metal's demo does, which a child may keep. It has a lock on the file ``alone`` for as long as it
lives; a child that finds another one there says so in the file ``overlaps``. The file ``answered`` has the prompts that
were answered. CHILD_PAUSE is what each line takes, in seconds.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo_lines
import pytest
from demo_lines import Generator, create_tt_model
from loguru import logger

PAUSE = float(os.environ.get("CHILD_PAUSE", "0"))


def note(name, value):
    with open(name, "a") as file:
        file.write(json.dumps(value) + "\n")


# The kernel closes it, however this process ends. A child that keeps its model comes here again.
if not hasattr(sys, "alone"):
    sys.alone = open("alone", "a")  # noqa: SIM115
    try:
        fcntl.flock(sys.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlaps", {"pid": os.getpid(), "at": time.time()})


def hang():
    time.sleep(600)


def hang_deaf_to_sigint():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(600)


def hang_deaf_to_both():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang_deaf_to_sigint()


def wait_for_helper():
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("helper.pid").write_text(str(helper.pid))
    if helper.wait():
        raise RuntimeError(f"the helper ended with {helper.returncode}")


ORDERS = {
    "hang": hang,
    "hang, deaf to SIGINT": hang_deaf_to_sigint,
    "hang, deaf to SIGINT and SIGTERM": hang_deaf_to_both,
    "hang, then close slowly": hang,
    "wait for a helper": wait_for_helper,
}


def obey(prompt):
    if prompt in ORDERS and not Path(f"done: {prompt}").exists():
        Path(f"done: {prompt}").touch()
        ORDERS[prompt]()


@pytest.fixture
def mesh_device(request, batch_size):
    yield object()
    if "hang, then close slowly" in demo_lines.prompts(request, batch_size):
        time.sleep(1)
    note("closed", os.getpid())


@demo_lines.cases
def test_demo_text(request, batch_size, mesh_device):
    inputs = demo_lines.prompts(request, batch_size)
    sequence = request.config.getoption("--max_seq_len")
    model_args, model, _, _ = create_tt_model(mesh_device, max_batch_size=len(inputs), max_seq_len=sequence)
    Generator([model], [model_args], mesh_device)
    for level, message in demo_lines.run(request, batch_size, lambda prompt: f"ok: {prompt}"):
        logger.log(level, message)
        time.sleep(PAUSE)
        if message == "Starting decode loop...":
            for prompt in inputs:
                obey(prompt)
    note("answered", inputs)
