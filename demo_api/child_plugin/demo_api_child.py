"""The pytest plugin that demo_api loads into the demo's process (``-p demo_api_child``).

It runs in the demo's interpreter, which is seldom the server's: standard library only, Python 3.8+, pytest 7+.
It changes no file of the demo. What it is to do stands in the JSON file that ``DEMO_API_CHILD`` names:

parent_pid
    the server; when it dies, this process is interrupted, so that the device is closed.
sampling_params
    becomes ``config.option.sampling_params``. The command line cannot carry it: the demo declares the option with
    ``type=dict``, which refuses every JSON text.
first_token_only
    the demo always decodes at least one token beyond the prefill token. For an answer of one token each user is marked
    as done before the loop, in the demo's own list, as if the next token had been an end of sequence.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def pytest_load_initial_conftests() -> None:
    # Before the demo home's conftest is imported: that import alone may take many seconds.
    order = _order()
    # A server started in the background of a script has SIGINT ignored, and children inherit that. The demo closes the
    # device on KeyboardInterrupt only.
    signal.signal(signal.SIGINT, _interrupt_once)
    _die_with(order.get("parent_pid"))


def pytest_configure(config: Any) -> None:
    order = _order()
    if order.get("sampling_params") is not None:
        config.option.sampling_params = order["sampling_params"]
    if order.get("first_token_only"):
        _end_after_first_token()


def pytest_collection_finish() -> None:
    _log("collected")


def pytest_unconfigure(config: Any) -> None:
    # The server does this too, unless it was killed. The prompts are nobody's business any more.
    prompts = config.getoption("--input_prompts", None)
    if prompts and os.path.exists(prompts):
        os.remove(prompts)


def _order() -> dict[str, Any]:
    with open(os.environ["DEMO_API_CHILD"], encoding="utf-8") as file:
        order: dict[str, Any] = json.load(file)
        return order


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    # When the server is killed the kernel hands this process from one of its dying threads to the next, with a signal
    # each time. A second interrupt would break off the clean-up, in which the device is closed, that the first began.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _die_with(parent_pid: int | None) -> None:
    if not sys.platform.startswith("linux") or parent_pid is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent_pid:  # it died before the kernel knew of our wish
        raise KeyboardInterrupt


def _end_after_first_token() -> None:
    from loguru import logger  # the demo's own logger: where it is missing, so is the demo

    def sink(_message: str) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_name != "test_demo_text":
            frame = frame.f_back
        user_done = frame.f_locals.get("user_done") if frame is not None else None
        if not isinstance(user_done, list):
            raise RuntimeError("this demo cannot be ended after one token: ask for max_tokens 2 or more")
        user_done[:] = [True] * len(user_done)

    # What is not said here would be as LOGURU_* says; catch=False lets the demo fail by the sink's error.
    logger.add(sink, level=0, filter=_starts_decoding, format="{message}", serialize=False, catch=False)


def _starts_decoding(record: Any) -> bool:
    return bool(record["function"] == "test_demo_text" and record["message"] == "Starting decode loop...")


def _log(message: str) -> None:
    # In the shape of a serialised loguru record, so that one reader reads all; one write, so that nothing interleaves.
    record = {"name": "demo_api_child", "message": message, "time": {"timestamp": time.time()}}
    os.write(2, (json.dumps({"text": "demo_api_child: %s\n" % message, "record": record}) + "\n").encode())
