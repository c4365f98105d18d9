"""The command as a user types it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests

DEMO_API = [sys.executable, "-m", "demo_api"]


def demo_api(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO_API, *words], env=environ, capture_output=True, text=True, timeout=100, check=False)


class Serving:
    """A running ``demo-api serve``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.banner = ""
        self.log: list[str] = []
        assert process.stdout is not None
        with _killed_after(60, process):
            while not self.banner.endswith(f"{'=' * 72}\n") or "Ctrl+C" not in self.banner:
                line = process.stdout.readline()
                assert line, f"the server left: {process.stderr.read() if process.stderr else ''}"
                self.banner += line
        self.url = re.findall(r"(http://[^/\s]+)/chat", self.banner)[0]

    def next_line(self) -> str:
        """What it prints after the banner, line by line."""
        assert self.process.stdout is not None
        with _killed_after(60, self.process):
            return self.process.stdout.readline()

    def wait_for_log(self, words: str) -> None:
        assert self.process.stderr is not None
        with _killed_after(60, self.process):
            for line in self.process.stderr:
                self.log.append(line)
                if words in line:
                    return
        raise AssertionError(f"{words!r} was never logged: {self.log}")

    def chat_in_background(self, **fields: object) -> tuple[threading.Thread, list[requests.Response]]:
        answers: list[requests.Response] = []
        body = {"prompt": "Hello", **fields}
        thread = threading.Thread(
            target=lambda: answers.append(requests.post(f"{self.url}/chat", json=body, timeout=100))
        )
        thread.start()
        return thread, answers


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends what a server prints, and with it the block that reads that."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def serving(*words: str, environ: dict[str, str]) -> Iterator[Serving]:
    process = subprocess.Popen(
        [*DEMO_API, "serve", "--port", "0", *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Serving(process)
    finally:
        process.kill()
        process.communicate(timeout=30)
