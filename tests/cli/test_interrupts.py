"""Ctrl-C and its like at the worst moments: while modules are imported, and while a child is spawned."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.command_line import DEMO_API
from support.serving import clean_environ

FIRST_ACT = """#!/bin/sh
kill -{signal} $PPID
exec sleep 1000
"""
"""A child that has its parent interrupted before the parent can have looked at it."""

SERVERS_FIRST_ACT = """import os, signal, sys
if "serve" in sys.orig_argv:
    os.kill(os.getppid(), signal.SIG{signal})
"""

WHILE_IMPORTED = """import os, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == {module!r} and not os.environ.get("DONE"):
            os.environ["DONE"] = "1"
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose home, state and temporary files are in the test's folder."""
    (tmp_path / "tmp").mkdir()
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "DEMO_API_STATE_DIR": str(tmp_path / "state")}
    return clean_environ() | own | {"DEMO_API_STOP_GRACE": "5", "PYTHONPATH": str(tmp_path / "site")}


@pytest.fixture
def at_start(tmp_path: Path) -> Callable[[str], None]:
    """Has every Python that is started run this code first."""

    def write(code: str) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(code)

    return write


def _left(home: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _is_of(home, process)]


def _is_of(home: Path, process: psutil.Process) -> bool:
    try:
        return process.environ().get("HOME") == str(home)
    except (psutil.Error, OSError):  # gone, or a zombie
        return False


def ended(words: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command, and what it printed to stderr."""
    done = subprocess.run([*DEMO_API, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


DOCTOR = ["doctor", "--python", "SCRIPT"]
RESET = ["device", "reset", "--reset-command", "SCRIPT"]
DEMO = ["--python", "SCRIPT", "--llama-dir", "MODEL"]
SPAWNING = {
    "doctor, Ctrl-C": ("INT", DOCTOR),
    "doctor, stopped": ("TERM", DOCTOR),
    "doctor, terminal closed": ("HUP", DOCTOR),
    "run, Ctrl-C": ("INT", ["run", *DEMO, "Hello"]),
    "smoke, terminal closed": ("HUP", ["smoke", *DEMO]),
    "device reset, Ctrl-C": ("INT", RESET),
    "device reset, terminal closed": ("HUP", RESET),
}


@pytest.mark.parametrize(("number", "words"), SPAWNING.values(), ids=SPAWNING)
def test_a_signal_at_the_spawn_leaves_nothing(
    environ: dict[str, str], tmp_path: Path, number: str, words: list[str]
) -> None:
    script, model = tmp_path / "python", tmp_path / "model.gguf"
    script.write_text(FIRST_ACT.format(signal=number))
    script.chmod(0o755)
    model.touch()
    code, stderr = ended([{"SCRIPT": str(script), "MODEL": str(model)}.get(word, word) for word in words], environ)
    assert (code, "Traceback" in stderr) == (130, False), stderr
    assert _left(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", ["INT", "HUP"])
def test_a_signal_at_the_spawn_of_a_server_leaves_nothing(
    environ: dict[str, str], tmp_path: Path, at_start: Callable[[str], None], number: str
) -> None:
    at_start(SERVERS_FIRST_ACT.format(signal=number))
    code, stderr = ended(["compare", "--start"], environ)
    assert (code, "Traceback" in stderr) == (130, False), stderr
    assert _left(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("module", ["click", "demo_api.config", "demo_api.cli.smoke.checks"])
def test_ctrl_c_while_modules_are_imported_is_130_and_says_nothing(
    environ: dict[str, str], at_start: Callable[[str], None], module: str
) -> None:
    at_start(WHILE_IMPORTED.format(module=module))
    assert ended(["smoke"], environ) == (130, "")


def test_ctrl_c_while_a_server_does_not_answer_is_130_and_one_line(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = [*DEMO_API, "compare", "--demo", url, "--direct", url]
        process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "waiting for the demo server\ndemo-api: Interrupted.\n")
