"""The examples of docs/clients.md run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from support.doc_pages import PAGES
from support.serving import Server

NODE = shutil.which("node")
EXAMPLES = re.findall(r"^```(python|javascript)\n(.*?)^```", PAGES["clients.md"], re.S | re.M)


def _name(example: tuple[str, str]) -> str:
    language, code = example
    return f"{language}, {code.splitlines()[0].strip()[:40]}"


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_an_example_prints_the_right_answer(cpu_server: Server, example: tuple[str, str]) -> None:
    language, code = example
    if language == "javascript" and NODE is None:
        pytest.skip("there is no node")
    code = code.replace("http://127.0.0.1:8080", cpu_server.url)
    command = [sys.executable, "-c", code] if language == "python" else [NODE, "--input-type=module", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\b(is|=|equals) (4|four)\b", done.stdout)  # from the real model, as a reader gets it


def test_both_languages_have_examples() -> None:
    assert {language for language, _ in EXAMPLES} == {"python", "javascript"}
