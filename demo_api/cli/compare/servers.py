"""Starts the servers of a comparison as child processes, and stops them."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from demo_api.cli.compare.asking import not_ready
from demo_api.cli.compare.comparison import SIDES
from demo_api.client import Client
from demo_api.config import Settings, flag, variable
from demo_api.errors import SetupError

OWN_SETTINGS = (
    *("host", "port", "engine", "fail_fast", "state_dir", "database_url", "drain"),
    *("keys", "keys_file", "key", "insecure", "hosts", "rate_limit", "run_rate_limit"),
)
"""Settings that are chosen here for each server, whatever the user's are."""

_URL = re.compile(r"^ +POST +(http\S+)/chat\n", re.M)
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 15.0
_SHOWN_LINES = 20


class Servers:
    """The servers of ``sides``, each on a free port of 127.0.0.1 and with a folder of state of its own.

    A device belongs to one process at a time, and a server may keep it between requests. So only the CPU edition has
    all servers at the same time; elsewhere the others are stopped before one is started.

    Args:
        settings: those of this process, checked. ``run_timeout`` bounds how long a server may take until it is ready.
        flags: the settings that were given as flags, by name, as text; variables are inherited.
        timeout: seconds to wait for one answer.
    """

    def __init__(self, settings: Settings, flags: Mapping[str, str | None], *, timeout: float) -> None:
        self.one_at_a_time = not settings.is_cpu_demo
        # Unless somebody has chosen what stays: the demo as everybody knows it, where what loading takes is a part of
        # the comparison, and beside it the demo whose model stays loaded.
        self.sides = SIDES if settings.warm is None else ("demo", "direct")
        self._settings = settings
        self._flags = _words_of(flags)
        self._timeout = timeout
        self._key = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="demo-api-compare-"))
        self._lock = threading.Lock()
        self._interrupted = False
        self._leaving: set[str] = set()  # a second SIGTERM would cut short a server's grace
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: dict[str, Client] = {}

    def client(self, side: str) -> Client:
        """The server of a side; started, and waited for, if it is not there.

        Raises:
            SetupError: it left, or was not ready in time; the error has the server's own words.
            KeyboardInterrupt: after ``interrupt``.
        """
        self.raise_if_interrupted()
        if side not in self._clients:
            if self.one_at_a_time:
                self._stop()
            self._spawn(side)
            self._clients[side] = self._wait(side)
        return self._clients[side]

    def raise_if_interrupted(self) -> None:
        """Raises KeyboardInterrupt after ``interrupt``: what a server answered then is that it stops."""
        if self._interrupted:
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Stops them, and keeps others from being started. Returns at once, from any thread."""
        with self._lock:
            self._interrupted = True
            self._terminate()

    def hurry(self) -> None:
        """Cuts short the time in which they stop. Returns at once, from any thread."""
        with self._lock:
            self._leaving.clear()
            self._terminate()

    def close(self, *, keep_folder: bool = False) -> Path | None:
        """Stops them: SIGTERM, time to close the device, SIGKILL.

        Returns:
            the folder with the servers' state and logs, if it was to be kept.
        """
        self._stop()
        if keep_folder:
            return self._folder
        shutil.rmtree(self._folder, ignore_errors=True)
        return None

    def _spawn(self, side: str) -> None:
        folder = self._folder / side
        folder.mkdir()
        own = {"host": "127.0.0.1", "port": "0", "state_dir": str(folder / "state"), "drain": "0", "fail_fast": "true"}
        own["engine"] = "direct" if side == "direct" else "demo"
        if self._settings.warm is None:
            own["warm"] = "model" if side == "kept" else "off"
        command = [sys.executable, "-m", "demo_api", "serve", *self._flags, *_words_of(own)]
        unwanted = {variable(name) for name in OWN_SETTINGS}
        environ = {name: value for name, value in self._settings.inherited.items() if name not in unwanted}
        environ["DEMO_API_KEYS"] = self._key
        with open(folder / "stdout.txt", "wb") as stdout, open(folder / "stderr.txt", "wb") as stderr, self._lock:
            self.raise_if_interrupted()
            # In a session of its own: the terminal's Ctrl-C is for us, who then stop it in order.
            self._processes[side] = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
            )

    def _wait(self, side: str) -> Client:
        process, problem = self._processes[side], "it did not tell its address"
        deadline = time.monotonic() + self._settings.run_timeout
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                self.raise_if_interrupted()
                ended = f"The {side} server did not start (exit code {process.returncode})."
                raise SetupError(ended, next_step=self._last_words(side))
            url = _URL.search(self._printed(side, "stdout"))
            if url is None:
                continue
            client = Client(url[1], timeout=self._timeout, key=self._key)
            why_not = not_ready(client)
            if why_not is None:
                return client
            problem = why_not
        late = f"The {side} server was not ready within {self._settings.run_timeout:g} s: {problem}"
        raise SetupError(late, next_step=self._last_words(side))

    def _last_words(self, side: str) -> str:
        return "\n".join(self._printed(side, "stderr").strip().splitlines()[-_SHOWN_LINES:]) or "It said nothing."

    def _printed(self, side: str, stream: str) -> str:
        return (self._folder / side / f"{stream}.txt").read_text(encoding="utf-8", errors="replace")

    def _stop(self) -> None:
        with self._lock:
            self._terminate()
        try:
            deadline = time.monotonic() + self._settings.stop_grace + _STOP_SECONDS
            for process in self._processes.values():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in self._processes.values():
                process.kill()
            for process in self._processes.values():
                process.wait()
            with self._lock:
                self._processes.clear()
                self._leaving.clear()
            self._clients.clear()

    def _terminate(self) -> None:
        for side, process in self._processes.items():
            if side not in self._leaving:
                self._leaving.add(side)
                process.terminate()


def _words_of(flags: Mapping[str, str | None]) -> list[str]:
    """The words of a command line that give these settings."""
    return [word for name, value in flags.items() if value is not None for word in (flag(name), value)]
