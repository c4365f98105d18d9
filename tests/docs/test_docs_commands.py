"""Every command of the documentation is executed, or says what it needs; what is shown is what comes; links lead."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.doc_pages import PAGES, PATHS, ROOT, Block, anchors, blocks, differs, links
from support.programs import program
from support.serving import Server
from support.waiting import until

from demo_api.config import Settings

NEEDS = ("Tenstorrent hardware", "root", "Docker", "Kubernetes", "PostgreSQL")
# What takes long, or stops the server of the page, has a test of its own.
ELSEWHERE = {
    "demo-api smoke --junit-xml": "cli/test_smoke.py::test_the_prompts_that_ship_pass_with_the_real_small_model",
    "pg_dump --format": "deploy/test_backups.py::test_a_ledger_in_postgresql_is_backed_up_and_restored",
    "demo-api compare --": "cli/test_compare.py::test_start_compares_the_real_engines_and_leaves_nothing",
}
# Its examples, some of which are in another language, have a test of their own too.
CLIENTS = "docs/test_docs_clients.py::test_an_example_prints_the_right_answer"
NO_COMMANDS = ("json", "yaml", "text", "ini", "nginx")
LOOKS_LIKE_A_COMMAND = re.compile(
    r"^(curl|demo-api|make|pip|docker|kubectl|systemctl|sudo|gunicorn|export|sqlite3|pg_dump) ", re.M
)
# What must not happen to the machine of whoever runs the tests, even if a mark was forgotten.
NEVER = re.compile(
    r"^ *(sudo|systemctl|apt-get|useradd|docker|kubectl|nginx|install|rm|sed --in-place|tt-smi)\b", re.MULTILINE
)
ENGINES = {"direct.md": "direct"}
SERVERS = ("demo-api serve", "gunicorn ")


def _all() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def _elsewhere(block: Block) -> str | None:
    if block.page == "clients.md":
        return CLIENTS
    return next((test for start, test in ELSEWHERE.items() if block.text.startswith(start)), None)


def _asks(block: Block) -> bool:
    """Whether the block is an example that sends the question whose answer the reader knows."""
    return "2+2" in block.text and block.language in ("sh", "python", "javascript")


def _executed(page: str) -> list[Block]:
    """The blocks of a page that are executed here, in their order."""
    return [block for block in blocks(page) if block.language in ("sh", "python") and not block.needs
            and not _elsewhere(block)]  # fmt: skip


@pytest.mark.parametrize("block", _all(), ids=str)
def test_a_block_is_executed_or_says_why_not(block: Block) -> None:
    if block.language in NO_COMMANDS:
        assert not LOOKS_LIKE_A_COMMAND.search(block.text), "commands stand in blocks of sh"
        return
    assert block.language in ("sh", "python") or _elsewhere(block) == CLIENTS
    if block.needs:
        assert block.needs in NEEDS
    elif test := _elsewhere(block):
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()
    else:
        assert block in _executed(block.page)
        assert not NEVER.search(block.text), "it says in its first line what it needs"


@pytest.mark.parametrize("block", [block for block in _all() if _asks(block)], ids=str)
def test_a_question_with_one_right_answer_is_asked_at_temperature_0(block: Block) -> None:
    assert re.search(r"""temperature["']?\s*[:=]\s*0\b(?!\.)""", block.text), "a copied example may get a wrong answer"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (PATHS[page].parent / path).resolve() if path else PATHS[page]
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.name), target


@pytest.mark.parametrize("page", [page for page in PAGES if _executed(page)])
def test_the_commands_of_a_page_run_and_print_what_it_shows(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path, tmp_path: Path, page: str
) -> None:
    server = serve(settings(llama_dir=model_dir, engine=ENGINES.get(page, "demo")))
    until(lambda: server.get("/readyz").status_code == 200)
    session = Session(tmp_path / "reader", server)
    blocks = _executed(page)
    servers = [block for block in blocks if block.text.splitlines()[-1].startswith(SERVERS)]
    for block in blocks:
        if block not in servers:
            session.add(block)
    session.run()
    for block in servers:  # with what the other commands have made
        session.serve(block)


class Session:
    """A reader, who types all commands of a page into one shell, with the server's port."""

    def __init__(self, folder: Path, server: Server) -> None:
        folder.mkdir()
        for name in ("prompts", "deploy", "tests"):
            (folder / name).symlink_to(ROOT / name)
        self._folder = folder
        self._server = server
        self._blocks: list[Block] = []
        self._script = ["set -e -o pipefail", f'make() {{ command make --dry-run --directory {ROOT} "$@"; }}']
        self._environ = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "DEMO_API_MODEL_DIR": str(server.settings.llama_dir and server.settings.llama_dir.parent),
            "DEMO_API_STATE_DIR": str(server.settings.state_dir),
        }

    def add(self, block: Block) -> None:
        """Types it when the session runs."""
        assert not NEVER.search(block.text), str(block)
        for name in ("jq", "sqlite3"):
            if re.search(rf"\b{name}\b", block.text):
                program(name, name)
        text = block.text.replace("http://127.0.0.1:8080", self._server.url)
        if block.language == "python":
            text = f"python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON\n"
        # Where the page shows an error, the client must live with one. Nowhere else.
        fails = block.shown and re.search(r'"success": false|^HTTP/1.1 [45]|^[45]\d\d$', block.shown.text, re.MULTILINE)
        strict = "" if fails else "--fail-with-body"
        self._blocks.append(block)
        self._script += [
            f'curl() {{ command curl --silent --show-error {strict} "$@"; }}',
            f"echo {shlex.quote(f'at {block}')} >&2",
            f"{{\n{text}}} > {self._printed(block)}",
        ]

    def run(self) -> None:
        """Types everything, and compares what comes with what the page shows."""
        done = subprocess.run(
            ["bash", "-c", "\n".join(self._script)],
            cwd=self._folder, env=self._environ, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.fail(f"exit code {done.returncode}: {done.stderr[-2000:]}")
        for block in self._blocks:
            printed = self._printed(block).read_text()
            if block.shown:
                assert not differs(block.shown.text, printed), str(block)
            for path, line in (("/events\n", "event: done"), ("/log\n", "1 passed")):
                assert path not in block.text or line in printed, str(block)

    def serve(self, block: Block) -> None:
        """Starts the server that the block starts, on a port of its own, and stops it with Ctrl-C."""
        printed = self._folder / "server"
        environ = self._environ | {"DEMO_API_PORT": "0", "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0"}
        environ["DEMO_API_STATE_DIR"] = str(self._folder / "another")
        with open(printed, "wb") as file, subprocess.Popen(
            ["bash", "-e", "-c", block.text], cwd=self._folder, env=environ,
            stdout=file, stderr=file, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                until(lambda: process.poll() is not None or re.search("Ctrl.C|Booting worker", printed.read_text()))
                assert process.poll() is None, printed.read_text()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.wait(60) == 0, printed.read_text()

    def _printed(self, block: Block) -> Path:
        return self._folder / f"printed-{block.line}"
