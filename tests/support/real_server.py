"""Servers that are processes of their own, on real ports, and share a state folder."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from support.demo_homes import make_home
from support.sse import events
from support.waiting import pause, until

PROGRAM = [sys.executable, "-m", "demo_api"]
SERVE = [*PROGRAM, "serve", "--port", "0"]
WORK = [*PROGRAM, "worker"]
GUNICORN = [sys.executable, "-m", "gunicorn", "demo_api:create_app()", "-b", "127.0.0.1:0"]


class RealServer:
    """A server that was just started. What it prints goes to a file: a pipe that nobody reads would stop it."""

    def __init__(self, process: subprocess.Popen[bytes], printed: Path) -> None:
        self.process = process
        self.printed = printed
        self.url = ""

    def wait_until_it_listens(self) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, f"the server left: {self.log()}"
            if "Worker ready" in self.log():
                return True
            found = re.search(r"(?:Listening at: |POST )(http://127\.0\.0\.1:\d+)", self.log())
            self.url = found[1] if found else ""
            return bool(found) and ("Ctrl+C" in self.log() or "Listening" in self.log())

        until(listens, tick_seconds=0.02)

    def log(self) -> str:
        return self.printed.read_text(errors="replace")

    def get(self, path: str, seconds: float = 100) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=seconds)

    def post(self, path: str, body: object = None, seconds: float = 100) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, timeout=seconds)

    def chat(self, prompt: str, **fields: object) -> requests.Response:
        return self.post("/chat", {"prompt": prompt, **fields}, seconds=120)

    def submit(self, prompt: str, **fields: object) -> str:
        answer = self.post("/runs", {"prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.get(f"/runs/{run_id}").json()
        return record

    def device(self) -> dict[str, Any]:
        device: dict[str, Any] = self.get("/health").json()["device"]
        return device

    def is_idle(self) -> bool:
        health = self.get("/health").json()
        return health["queue"]["waiting"] == health["queue"]["running"] == 0 and health["device"]["state"] != "busy"

    def wait_for_event(self, run_id: str, **wanted: object) -> None:
        """Returns when an event of the run says all of this."""
        for _, _, data in events(f"{self.url}/runs/{run_id}/events"):
            if wanted.items() <= data.items():
                return
        raise AssertionError(f"run {run_id} has no event with {wanted}")

    def ending(self, run_id: str) -> dict[str, Any]:
        """The run when it has ended: exactly once, and with no gap in its events."""
        seen = [event for event in events(f"{self.url}/runs/{run_id}/events") if event[1] != "position"]
        assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
        assert [kind for _, kind, _ in seen].count("done") == 1, seen
        assert seen[-1][1] == "done"
        record = self.run(run_id)
        assert record["status"] == seen[-1][2]["status"]
        assert record["finished_at"]
        return record

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.kill()
        self.process.wait(60)

    def freeze(self, ledger: Path, *, while_it_writes: bool = False) -> None:
        """Suspends it, between two of its transactions or within one: who is suspended keeps SQLite's lock."""
        for _ in range(2000):
            self.process.send_signal(signal.SIGSTOP)
            until(self._is_frozen, tick_seconds=0.002)
            if can_be_written(ledger) is not while_it_writes:
                return
            self.thaw()
            pause(0.01)
        raise AssertionError("it could not be frozen at the right moment")

    def _is_frozen(self) -> bool:
        # Every thread: one that was in the kernel when the signal came may still have taken a lock there.
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Site:
    """What servers share: a state folder, and a demo home with one of ``tests/children``."""

    def __init__(self, folder: Path, child: str = "obeys_its_prompt", *, state: Path | None = None) -> None:
        self.folder = folder
        self.home = make_home(folder / "home", child)
        self.state = state or folder / "state"
        (folder / "model").mkdir()
        self.ledger = self.state / "ledger.db"
        self._servers = 0
        self.environ = os.environ | {
            "DEMO_API_STATE_DIR": str(self.state),
            "DEMO_API_DEMO_HOME": str(self.home),
            "DEMO_API_STOP_GRACE": "5",
            "DEMO_API_DRAIN": "0",
            "LLAMA_DIR": str(folder / "model"),
        }

    @contextmanager
    def serving(self, command: list[str] = SERVE, **settings: object) -> Iterator[RealServer]:
        """A server, until the end of the block, and with it the processes of its runs.

        Args:
            settings: by their names: ``max_queue=5``.
        """
        self._servers += 1
        printed = self.folder / f"server-{self._servers}.log"
        given = {f"DEMO_API_{name.upper()}": str(value) for name, value in settings.items()}
        with open(printed, "wb") as file:
            process = subprocess.Popen(
                command, env=self.environ | given, stdout=file, stderr=file, start_new_session=True
            )
        server = RealServer(process, printed)
        try:
            server.wait_until_it_listens()
            yield server
        finally:
            self._end(process)

    def processes(self) -> list[psutil.Process]:
        """The living processes of all runs here, whichever server started them."""
        return [process for process in map(_process, psutil.pids()) if process and self._is_of_a_run(process)]

    def overlaps(self) -> str:
        """What children say that found another one at work."""
        path = self.home / "overlaps"
        return path.read_text() if path.exists() else ""

    def check_ledger(self) -> None:
        """The database is whole."""
        with closing(sqlite3.connect(self.ledger)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def _is_of_a_run(self, process: psutil.Process) -> bool:
        try:
            living = process.status() != psutil.STATUS_ZOMBIE
            return living and process.environ().get("DEMO_API_CHILD", "").startswith(str(self.state))
        except psutil.Error:
            return False

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        family = [process.pid] if process.poll() is None else []
        if family:  # gunicorn's workers, and no child: those have sessions of their own
            family += [worker.pid for worker in psutil.Process(process.pid).children()]
        for pid in family:
            if _process(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait(60)
        for child in self.processes():
            child.kill()


def can_be_written(ledger: Path) -> bool:
    """Whether nobody has the database's lock for longer than a moment."""
    with closing(sqlite3.connect(ledger, timeout=0.2, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Nobody else can write into the database."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None
