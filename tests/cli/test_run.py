"""``demo-api run``: where its prompts come from, and what it shows on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest
from support.command_line import DEMO_API
from support.demo_homes import make_home
from support.serving import clean_environ


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose state is in the test's folder."""
    (tmp_path / "model").mkdir()
    own = {"DEMO_API_STATE_DIR": tmp_path / "state", "LLAMA_DIR": tmp_path / "model"}
    own["DEMO_API_DEMO_HOME"] = make_home(tmp_path / "home", "passes")
    return clean_environ() | {name: str(value) for name, value in own.items()}


def run(*words: str, environ: dict[str, str], stdin: bytes = b"") -> tuple[int, str, str]:
    """The exit code, what was printed, and the errors."""
    done = subprocess.run(
        [*DEMO_API, "run", *words], env=environ, input=stdin, capture_output=True, timeout=100, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


LINES, DEMO = b"One\n\n  Two \r\n[Three]\n", b' [{"prompt": "One"}, {"prompt": "Two"}, {"prompt": "[Three]"}]'
THREE = "ok: One\n\nok: Two\n\nok: [Three]\n"
GIVEN = {
    "- is standard input": (["-"], b"Hello\n", "ok: Hello\n"),
    "its lines are one prompt": (["-"], b"Hello,\nyou\n", "ok: Hello,\nyou\n"),
    "lines from standard input": (["--file", "-"], LINES, THREE),
    "the demo's format from standard input": (["--file", "-"], DEMO, THREE),
    "a byte order mark": (["-"], b"\xef\xbb\xbfHello", "ok: Hello\n"),
}


@pytest.mark.parametrize(("words", "stdin", "stdout"), GIVEN.values(), ids=GIVEN)
def test_prompts_come_from_words_and_from_standard_input_and_share_a_child(
    environ: dict[str, str], tmp_path: Path, words: list[str], stdin: bytes, stdout: str
) -> None:
    assert run(*words, environ=environ, stdin=stdin) == (0, stdout, "")
    assert len(list((tmp_path / "state" / "runs").iterdir())) == 1


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.json"])
def test_prompts_come_from_a_file_and_their_answers_in_its_order(
    environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(DEMO if name.endswith(".json") else LINES)
    code, stdout, _ = run("--json", "--file", str(tmp_path / name), environ=environ)
    answers = [json.loads(line)["response"] for line in stdout.splitlines()]
    assert (code, answers) == (0, ["ok: One", "ok: Two", "ok: [Three]"])


REFUSED = {
    "nothing": ([], b"", "Give one prompt"),
    "a prompt and a file": (["--file", "-", "Hello"], b"One", "Give one prompt"),
    "a prompt without quotes": (["What", "is", "2+2?"], b"", "unexpected extra arguments"),
    "empty standard input": (["-"], b"", "prompt"),
    "no lines": (["--file", "-"], b"\n \n", "Standard input has no prompts."),
    "no text": (["-"], b"\xff\xfe\xff", "Standard input is no text"),
    "no such file": (["--file", "/none"], b"", "The prompt file /none cannot be read"),
    "not the demo's format": (["--file", "-"], b'["One"]', "Standard input is no prompt file: entry 1"),
    "the second is blank": (["--file", "-"], b'[{"prompt": "One"}, {"prompt": " "}]', "Prompt 2: "),
}


@pytest.mark.parametrize(("words", "stdin", "sentence"), REFUSED.values(), ids=REFUSED)
def test_prompts_that_cannot_be_used_are_wrong_use(
    environ: dict[str, str], words: list[str], stdin: bytes, sentence: str
) -> None:
    code, stdout, stderr = run(*words, environ=environ, stdin=stdin)
    assert (code, stdout) == (2, "")
    assert sentence in stderr
    assert "Traceback" not in stderr


def on_terminal(*words: str, environ: dict[str, str]) -> str:
    """What `demo-api run` writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DEMO_API, "run", *words], env=environ | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    stop = threading.Timer(100, process.kill)
    stop.start()
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # how Linux says that nobody has the other end any more
        pass
    finally:
        process.wait()
        stop.cancel()
        os.close(ours)
    return shown.decode()


FORGED = "a\x1b]0;title\x07b\x9bc"


def test_an_answers_control_characters_are_shown_on_a_terminal_and_raw_in_a_pipe(environ: dict[str, str]) -> None:
    assert run(FORGED, environ=environ) == (0, f"ok: {FORGED}\n", "")
    shown = on_terminal(FORGED, environ=environ)
    assert r"ok: a\x1b]0;title\x07b\x9bc" in shown
    assert "\x1b]0;title" not in shown


def test_the_live_text_has_no_chat_template_and_the_seconds_go_on(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {"DEMO_API_DEMO_HOME": str(make_home(tmp_path / "slow", "passes_slowly"))}
    shown = on_terminal("Hello", environ=environ)
    assert "1 s  " in shown
    assert "ok: Hello" in shown
    assert "<|" not in shown


@pytest.fixture
def cpu_demo(tmp_path: Path, model_dir: Path) -> dict[str, str]:
    """The environment of a user of the CPU edition."""
    return clean_environ() | {"DEMO_API_STATE_DIR": str(tmp_path / "state"), "LLAMA_DIR": str(model_dir)}


def test_the_cpu_edition_answers_in_a_pipe(cpu_demo: dict[str, str]) -> None:
    code, stdout, stderr = run("--max-tokens=16", "--json", "What is 2+2?", environ=cpu_demo)
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["tokens_generated"] > 1


def test_the_cpu_editions_answer_is_shown_while_it_comes(cpu_demo: dict[str, str]) -> None:
    shown = on_terminal("--max-tokens=64", "Write one sentence about the sea.", environ=cpu_demo)
    live = re.findall(r"decode: iteration \d+, [\d.]+ tokens/s  ([^\r\x1b]+)", shown)
    answer = " ".join(shown.rsplit("\x1b[2K", 1)[-1].split())
    assert len(answer) > 40, shown
    assert any(words.strip("… ") in answer for words in live if len(words) > 10), shown
