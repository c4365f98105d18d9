"""The CPU edition of the demo: how it is stopped, and what it leaves."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from support.cpu_demo import HOME, Demo

# ---- how it is stopped, and what it leaves


@pytest.mark.parametrize(
    ("message", "delay"),
    [
        ("Model name: ", 0.0),
        ("Model name: ", 0.1),
        ("Starting prefill...", 0.5),
        ("Iteration 3:", 0.0),
        ("Finished decoding, printing", 0.0),
    ],
    ids=["load", "later_in_load", "prefill", "decode", "end"],
)
def test_ctrl_c_ends_it_and_leaves_nothing(demo: Demo, message: str, delay: float) -> None:
    prompts = ["word " * 5000] if "prefill" in message else ["Write a poem about rain."]
    options = ("--max_seq_len", 8000, "--max_generated_tokens", 20 if "Finished" in message else 2000)
    child = demo.spawn(prompts, *options)
    demo.wait_for(message, child)
    time.sleep(delay)
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)
    code, run = child.returncode, demo.ended(child, prompts)
    if "prefill" in message:  # within a step of the engine, not at the end of a prompt that takes it many
        assert "Prefill finished" not in run.messages
    if "Finished" in message and code == 0:  # it was at its end before the interrupt came
        assert "1 passed" in run.stdout
    else:
        assert (code, "KeyboardInterrupt" in run.stdout) == (2, True)
    assert list(demo.temporary.iterdir()) == []


def ask(address: str, path: str, key: str | None) -> int:
    """The status of a request to a Unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    connection.sock.connect(address)
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    connection.request("POST", path, json.dumps({"prompt": "x", "content": "x", "messages": []}), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_engine_is_no_back_door(demo: Demo) -> None:
    child = demo.spawn(["Write a poem about rain."], "--max_seq_len", 8000, "--max_generated_tokens", 2000)
    try:
        demo.wait_for("Iteration 3:", child)
        process = psutil.Process(child.pid)
        (address,) = {c.laddr for c in process.net_connections("unix") if c.laddr}
        assert process.net_connections("inet") == [], "it listens on no port"
        assert stat.S_IMODE(Path(address).parent.stat().st_mode) == 0o700
        for path in ("/completion", "/tokenize", "/apply-template", "/v1/chat/completions", "/props", "/slots/0"):
            for key in (None, "", "wrong"):
                assert ask(address, path, key) == 401, path
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=30)


def test_the_engine_can_be_closed_as_soon_as_it_is_open(demo: Demo) -> None:
    """xllamacpp's server never ends if it is freed before its loop has begun, which Ctrl-C during the load can do."""
    code = (
        "from contextlib import ExitStack\n"
        "from models.tt_transformers.tt import model\n"
        "from models.tt_transformers.tt.model_config import ModelArgs\n"
        "class Dropped(model._Engine):\n"
        "    _server = property(lambda self: None, lambda self, server: None)  # frees it at once\n"
        "model._Engine = Dropped\n"
        "for _ in range(12):\n"
        "    with ExitStack() as device:\n"
        "        model.Model(ModelArgs(1, 64), device)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=demo.environment | {"PYTHONPATH": str(HOME)}, check=True, timeout=40,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert list(demo.temporary.iterdir()) == []


def test_a_long_temporary_path_does_not_matter(demo: Demo) -> None:
    longer = demo.temporary / ("x" * 90)
    longer.mkdir()
    run = demo.run(["Say hi."], "--max_generated_tokens", 1, TMPDIR=str(longer))
    assert run.exit_code == 0


def test_nothing_but_pytest_writes_to_stdout(demo: Demo) -> None:
    run = demo.run(["Say hi."], "--max_generated_tokens", 1)
    lines = [line for line in run.stdout.splitlines() if line and not line.startswith("=")]
    known = ("platform ", "cachedir: ", "rootdir: ", "configfile: ", "plugins: ", "collecting ", "PASSED")
    assert [line for line in lines if not line.startswith(known) and "test_demo_text" not in line] == []
    assert list(demo.temporary.iterdir()) == []


def test_what_a_killed_demo_left_in_the_temporary_folder_is_removed_by_the_next(demo: Demo) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:  # a socket's path must be short
        child = demo.spawn(["Count from one to a thousand."], "--max_generated_tokens", 500, TMPDIR=temporary)
        demo.wait_for("Starting decode loop...", child)
        child.kill()
        child.wait(10)
        assert list(Path(temporary).glob("cpu-demo-*"))
        demo.run(["Say hi."], "--max_generated_tokens", 1, TMPDIR=temporary)
        assert list(Path(temporary).glob("cpu-demo-*")) == []
