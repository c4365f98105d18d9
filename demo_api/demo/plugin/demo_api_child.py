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

import demo_api_control
import pytest
from demo_api_control import log
from demo_api_decode import DecodeWatch

PR_SET_PDEATHSIG = 1  # from linux/prctl.h

_STARTED = time.time()

_sources: dict[str, float] = {}  # the files of which this process consists, and when each was changed


class _Run:
    """What is known of this run of pytest."""

    def __init__(self) -> None:
        self.watch: DecodeWatch | None = None
        self.is_complete = False


_run = _Run()


def is_as_before() -> bool:
    """Whether pytest has run the test to its end, well or not, and the model was asked nothing that it did not answer.

    A failure before the model was asked anything, such as that of a prompt that does not fit, leaves it as it was.
    """
    return _run.is_complete and _run.watch is not None and not _run.watch.is_busy


def pytest_addoption() -> None:
    # The first hook of all: whatever was printed before this is not the demo's, and no device was opened.
    log("started")


def pytest_load_initial_conftests() -> None:
    # Before the demo home's conftest is imported: that import alone may take many seconds.
    global _run
    _run = _Run()
    plugin_config = _plugin_config()
    if plugin_config.get("waits"):
        demo_api_control.open_control()
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
    log("collected")
    return None


def pytest_runtest_logfinish() -> None:
    _run.is_complete = True


def pytest_keyboard_interrupt() -> None:
    _run.is_complete = False


def pytest_unconfigure(config: Any) -> None:
    if _run.watch is not None:
        _run.watch.stop()
    # The server does this too, unless it was killed. The prompts are nobody's business any more.
    prompts = config.getoption("--input_prompts", None) or _plugin_config().get("prompts")
    if prompts and os.path.exists(prompts):
        os.remove(prompts)


def _apply(plugin_config: dict[str, Any], config: Any) -> None:
    for name, value in plugin_config.get("options", {}).items():
        setattr(config.option, name, value)
    if plugin_config.get("sampling_params") is not None:
        config.option.sampling_params = plugin_config["sampling_params"]
    if not plugin_config.get("waits"):
        _run.watch = DecodeWatch(bool(plugin_config.get("first_token_only")))


def _wait_for_batch(config: Any) -> dict[str, Any] | None:
    # What was read first is what runs, in whichever run of pytest that was.
    for name, at in _files(config).items():
        _sources.setdefault(name, at)
    log("waiting")
    batch = demo_api_control.next_line()
    return batch if batch is not None and _are_as_read() else None


def _files(config: Any) -> dict[str, float]:
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


def _are_as_read() -> bool:
    now = time.time()
    # What was changed while this process came up may have been read before or after that.
    return all(_changed_at(name) == at and not _STARTED < at <= now for name, at in _sources.items())


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
