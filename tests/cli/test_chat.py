"""``demo-api chat``: in a pipe, and on a terminal as a user types there."""

from __future__ import annotations

import os
import pty
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.command_line import DEMO_API
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.serving import Server, clean_environ
from support.waiting import until

from demo_api.config import Settings
from demo_api.direct import DirectEngine
from demo_api.direct.model import Completion, OnText
from demo_api.messages import Question

KEY = "0123456789abcdef-key"


class Parrot(EchoModel):
    """Says the whole conversation, word by word; after "wait", it waits until it is let go, or until it is stopped."""

    stopped = 0

    def complete(self, question: Question, on_text: OnText) -> Completion:
        said = " ".join(f"{turn.role[0]}:{turn.content}" for turn in question.turns).split(" ")
        for tokens, word in enumerate(said[: question.request.max_tokens], 1):
            if on_text(f"{word} ", tokens):
                return Completion("", 0, None, "cancelled")
            while word == "u:wait" and not self.let_go.wait(0.01):
                if on_text("", tokens):
                    self.stopped += 1
                    return Completion("", 0, None, "cancelled")
        cut = question.request.max_tokens < len(said)
        return Completion(" ".join(said), len(said), 3, "length" if cut else "stop")


Start = Callable[..., tuple[Server, Parrot]]


@pytest.fixture
def direct(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Start:
    """Starts a server whose model says the conversation."""

    def start(**flags: object) -> tuple[Server, Parrot]:
        chosen, parrot = settings(engine="direct", **flags), Parrot(paused=True)
        engine = DirectEngine(parrot, chosen)
        server = serve(chosen, engine)
        engine.wait_until_loaded()
        return server, parrot

    return start


def chat(*words: str, said: bytes, **environ: str) -> tuple[int, str, str]:
    """The exit code of a chat in a pipe, what was printed, and the errors."""
    done = subprocess.run(
        [*DEMO_API, "chat", *words],
        env=clean_environ() | environ,
        input=said,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_every_line_of_a_pipe_is_answered_with_the_history_before_it(direct: Start) -> None:
    server, _ = direct(keys=KEY)
    said = b"one\n\n  two\r\n/new\nthree\n/quit\nfour\n"
    code, stdout, stderr = chat("--url", server.url, said=said, DEMO_API_KEY=KEY)
    assert (code, stdout) == (0, "u:one \nu:one a:u:one u:  two \nu:three \n")
    assert stderr == f"waiting for the model of {server.url}\n"


ENDED = {
    "no such command": ([], b"one\n/foo\ntwo\n", 2, "u:one \n", "There is no command /foo.\n/new starts"),
    "a message that is refused": ([], b"one\n" + b"x " * 3000, 2, "u:one \n", "The prompt is too long: it has 3"),
    "a parameter": (["--temperature=3"], b"one\n", 2, "", "The field 'temperature' is wrong"),
    "no text": ([], b"\xff\n", 2, "", "Standard input is no text"),
    "cut": (["--max-tokens=2"], b"one two three\n", 0, "u:one two \n", "(cut at --max-tokens, or at the end"),
}


@pytest.mark.parametrize(("words", "said", "code", "stdout", "stderr"), ENDED.values(), ids=ENDED)
def test_the_first_error_ends_a_pipe_and_a_cut_answer_does_not(
    direct: Start, words: list[str], said: bytes, code: int, stdout: str, stderr: str
) -> None:
    done = chat("--url", direct()[0].url, *words, said=said)
    assert done[:2] == (code, stdout), done[2]
    assert stderr in done[2]


def test_a_server_that_has_no_conversation_says_so(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(), EchoRunner())
    code, stdout, stderr = chat("--url", server.url, said=b"Hello\n")
    assert (code, stdout) == (2, "")
    assert f"{server.url} has the demo engine, which takes single prompts and no conversation." in stderr


WRONG_USE = {
    "no server": (["--url=http://127.0.0.1:1"], 1, "does not answer: Connection refused.\nStart it with"),
    "no address": (["--url=localhost"], 2, "localhost is not the address of a server."),
    "a setting and a server": (["--url=http://a", "--demo-home=/"], 2, "--demo-home cannot be used with --url."),
    "no model": (["--llama-dir=/none"], 3, "does not exist"),
}


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG_USE.values(), ids=WRONG_USE)
def test_without_a_model_there_is_no_conversation(words: list[str], code: int, sentence: str) -> None:
    done = chat(*words, said=b"Hello\n")
    assert done[:2] == (code, ""), done[2]
    assert sentence in done[2]


def test_without_a_server_the_model_is_loaded_here(model_dir: Path, tmp_path: Path) -> None:
    words = [f"--llama-dir={model_dir}", f"--state-dir={tmp_path}", "--max-tokens=16"]
    code, stdout, stderr = chat(*words, said=b"What is 2+2?\n/new\nWhat is 2+2?\n")
    assert (code, stderr) == (0, "loading the model\n")
    first, second = stdout.splitlines()
    assert "4" in first
    assert first == second  # the second conversation knows nothing of the first


class Terminal:
    """A chat on a terminal: what is typed, and what is shown."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads on until this is shown, and forgets what came before its end."""
        deadline = time.monotonic() + 30
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while text not in self.shown:
                assert selector.select(max(0.0, deadline - time.monotonic())), f"{text!r} has not come: {self.shown!r}"
                try:
                    self.shown += os.read(self._descriptor, 4096).decode()
                except OSError:  # how Linux says that nobody has the other end any more
                    raise AssertionError(f"{text!r} never came: {self.shown!r}") from None
        self.shown = self.shown.partition(text)[2]

    def wait_until_it_waits(self) -> None:
        """Waits until the chat sleeps: its last character is shown a moment before."""
        process = psutil.Process(self.process.pid)
        until(lambda: process.status() == psutil.STATUS_SLEEPING)


@contextmanager
def on_terminal(*words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DEMO_API, "chat", *words],
        env=clean_environ() | {"TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes the session's own
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_ctrl_c_stops_the_answer_and_not_the_program(direct: Start) -> None:
    server, parrot = direct()
    with on_terminal("--url", server.url) as terminal:
        terminal.wait_for("echo\r\n/new starts a new conversation")
        terminal.wait_for("> ")
        terminal.type("wait for me\r")
        terminal.wait_for("u:wait ")  # it streams: the rest has not been said yet
        terminal.type("\x03")
        terminal.wait_for("(stopped;")
        until(lambda: parrot.stopped == 1)
        terminal.wait_for("> ")
        parrot.let_go.set()
        terminal.type("again\r")
        terminal.wait_for("u:wait for me a:u:wait u:again")  # what was said belongs to the conversation
        terminal.wait_for("> ")
        terminal.type("/foo\r")
        terminal.wait_for("There is no command /foo.")
        terminal.wait_for("> ")
        terminal.type("/new\r")
        terminal.wait_for("> ")
        terminal.type("never")
        terminal.wait_for("never")
        terminal.wait_until_it_waits()  # Python's readline hears a Ctrl-C only while it waits for a key
        terminal.type("\x03")  # Ctrl-C at the prompt clears the line
        terminal.wait_for("(stopped;")
        terminal.wait_for("> ")
        terminal.type("last\r")
        terminal.wait_for("u:last")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["sigterm", "sighup"])
def test_a_signal_ends_the_program(direct: Start, number: signal.Signals) -> None:
    server, parrot = direct()
    with on_terminal("--url", server.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("wait\r")
        terminal.wait_for("u:wait ")
        terminal.process.send_signal(number)
        assert terminal.process.wait(30) == 130
        until(lambda: parrot.stopped == 1)
