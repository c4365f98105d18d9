"""What a command prints, wherever that goes: into files, on full disks, nowhere; with few files, with little memory."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from support.command_line import DEMO_API
from support.demo_homes import make_home
from support.serving import clean_environ

COLOURFUL = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose state is in the test's folder, and whose demo passes."""
    home = make_home(tmp_path / "home", "passes")
    (tmp_path / "model").mkdir()
    (tmp_path / "prompts.json").write_text('[{"prompt": "é"}]', encoding="utf-8")
    own = {"DEMO_API_STATE_DIR": tmp_path / "state", "DEMO_API_DEMO_HOME": home, "LLAMA_DIR": tmp_path / "model"}
    return clean_environ() | {name: str(value) for name, value in own.items()}


RUN, SMOKE = ["run", "é"], ["smoke", "--prompts", "PROMPTS"]
STATUS = ["device", "status"]


def ended(
    words: list[str], tmp_path: Path, environ: dict[str, str], shell: str = "", limit: str = ""
) -> tuple[int, str, str]:
    """The exit code of a command, its stdout and its stderr.

    Args:
        shell: what follows it on the shell's command line.
        limit: what bash's ``ulimit`` sets before.
    """
    words = [str(tmp_path / "prompts.json") if word == "PROMPTS" else word for word in words]
    line = f"{limit and f'ulimit {limit}; '}{shlex.join([*DEMO_API, *words])} {shell}"
    done = subprocess.run(["bash", "-c", line], env=environ, capture_output=True, timeout=100, check=False)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("words", [RUN, SMOKE, ["doctor"]], ids=lambda words: words[0])
def test_no_control_codes_come_into_a_file(environ: dict[str, str], tmp_path: Path, words: list[str]) -> None:
    code, stdout, stderr = ended(words, tmp_path, environ | COLOURFUL)
    assert code in (0, 3)
    assert stdout
    assert "\x1b" not in stdout + stderr


FULL = "demo-api: Standard output cannot be used: No space left on device."


@pytest.mark.parametrize(
    ("words", "code"),
    [(RUN, 3), (SMOKE, 2), (STATUS, 3), (["--help"], 3), (["doctor"], 3)],
    ids=["run", "smoke", "device status", "--help", "doctor"],
)
def test_a_full_disk_behind_standard_output_is_one_sentence(
    environ: dict[str, str], tmp_path: Path, words: list[str], code: int
) -> None:
    assert ended(words, tmp_path, environ, "> /dev/full") == (code, "", f"{FULL}\n")


def test_a_reader_that_has_gone_is_no_verdict_on_the_demo(environ: dict[str, str], tmp_path: Path) -> None:
    code, _, stderr = ended(SMOKE, tmp_path, environ, "| true; exit ${PIPESTATUS[0]}")
    assert (code, stderr) == (2, "demo-api: Standard output cannot be used: Broken pipe.\n")


@pytest.mark.parametrize("words", [RUN, SMOKE, STATUS], ids=["run", "smoke", "device status"])
def test_streams_that_are_closed_are_not_given_to_the_ledger(
    environ: dict[str, str], tmp_path: Path, words: list[str]
) -> None:
    assert ended(words, tmp_path, environ, "<&- >&- 2>&-") == (0, "", "")
    assert ended(STATUS, tmp_path, environ) == (0, "device: free\n", "")


@pytest.mark.parametrize(("words", "code"), [(RUN, 3), (SMOKE, 2)], ids=["run", "smoke"])
def test_too_few_files_to_open_is_no_matter_of_permission(
    environ: dict[str, str], tmp_path: Path, words: list[str], code: int
) -> None:
    exit_code, stdout, stderr = ended(words, tmp_path, environ, limit="-n 12")
    assert exit_code == code
    assert "Too many open files" in stdout + stderr
    assert "Raise the limit of open files (`ulimit -n`)" in stdout + stderr
    assert "permission" not in stdout + stderr


def test_too_little_memory_for_a_servers_threads_is_a_sentence(environ: dict[str, str], tmp_path: Path) -> None:
    code, _, stderr = ended(["serve", "--port", "0"], tmp_path, environ, limit="-v 600000")  # kB
    assert code == 3
    assert stderr.startswith(
        "demo-api: This process may not use as much memory, or start as many threads, as it needs."
    )
    assert "Raise the limit (ulimit -v, " in stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "ftp://a", "http://h:0", "http://h:99999"])
def test_what_is_no_address_of_a_server_is_said_alike(environ: dict[str, str], tmp_path: Path, url: str) -> None:
    refused = (2, "", f"demo-api: {url} is not the address of a server.\nUse one such as http://127.0.0.1:8080.\n")
    assert ended(["smoke", "--url", url], tmp_path, environ) == refused
    assert ended(["compare", "--demo", url, "--direct", url], tmp_path, environ) == refused
