"""The pytest plugin that demo_api loads into the demo's process (``-p demo_api_child``).

It runs in the demo's interpreter, which is seldom the server's: standard library only, Python 3.8+, pytest 7+.
It changes no file of the demo. What it is to do is in the JSON file that ``DEMO_API_CHILD`` names:

parent_pid
    the server; when it dies, this process is interrupted, so that the device is closed.
waits
    whether this child starts before its batch. It collects the tests and then waits on its standard input for one line
    of JSON with the rest of what follows here. At the end of input it leaves.
prompts
    the prompt file of a child that waits, which it has to remove even if it never gets a batch.
options
    the demo's options by their names, for a child that waits; otherwise the command line has them.
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

import pytest

PR_SET_PDEATHSIG = 1  # from linux/prctl.h

_STARTED = time.time()


def pytest_addoption() -> None:
    # The first hook of all: whatever was printed before this is not the demo's, and no device was opened.
    _log("started")


def pytest_load_initial_conftests() -> None:
    # Before the demo home's conftest is imported: that import alone may take many seconds.
    plugin_config = _plugin_config()
    # A server started in the background of a script has SIGINT ignored, and children inherit that. The demo closes the
    # device on KeyboardInterrupt only.
    signal.signal(signal.SIGINT, _interrupt_once)
    _die_with(plugin_config.get("parent_pid"))


def pytest_configure(config: Any) -> None:
    _apply(_plugin_config(), config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: Any) -> Any:
    """Only delays a child that waits: pytest's own loop, which comes next, runs the test."""
    if session.testsfailed or not session.items:
        return None  # it has nothing to wait for
    if _plugin_config().get("waits"):
        batch = _wait_for_batch(session.config)
        if batch is None:
            return True  # as if the loop had been run
        _apply(batch, session.config)
    _log("collected")
    return None


def pytest_unconfigure(config: Any) -> None:
    # The server does this too, unless it was killed. The prompts are nobody's business any more.
    prompts = config.getoption("--input_prompts", None) or _plugin_config().get("prompts")
    if prompts and os.path.exists(prompts):
        os.remove(prompts)


def _apply(plugin_config: dict[str, Any], config: Any) -> None:
    for name, value in plugin_config.get("options", {}).items():
        setattr(config.option, name, value)
    if plugin_config.get("sampling_params") is not None:
        config.option.sampling_params = plugin_config["sampling_params"]
    if plugin_config.get("first_token_only"):
        _end_after_first_token()


def _wait_for_batch(config: Any) -> dict[str, Any] | None:
    sources = _sources(config)
    _log("waiting")
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            return None
        line += piece
    # The test finds the standard input of a child that starts for its batch.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    batch: dict[str, Any] = json.loads(line)
    return batch if _are_as_read(sources) else None


def _sources(config: Any) -> dict[str, float]:
    """The files of which this process consists, and when each was changed."""
    names = {_file_of(module) for module in list(sys.modules.values())} | {str(config.inipath)}
    times = {name: _changed_at(name) for name in names if name}
    return {name: at for name, at in times.items() if at is not None}


def _file_of(module: Any) -> str | None:
    # Not getattr(): a module that is to be loaded at its first use would be loaded by that, or raise whatever it likes.
    try:
        name = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:  # anything can stand in sys.modules
        return None
    return name if isinstance(name, str) else None


def _are_as_read(sources: dict[str, float]) -> bool:
    now = time.time()
    # What was changed while this process came up may have been read before or after that.
    return all(_changed_at(name) == at and not _STARTED < at <= now for name, at in sources.items())


def _changed_at(name: str) -> float | None:
    try:
        return os.stat(name).st_mtime
    except OSError:
        return None


def _plugin_config() -> dict[str, Any]:
    with open(os.environ["DEMO_API_CHILD"], encoding="utf-8") as file:
        plugin_config: dict[str, Any] = json.load(file)
        return plugin_config


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
