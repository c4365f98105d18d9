"""Fixtures: the small model, demo homes, and real servers on real ports."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from demo_homes import make_home

from demo_api import create_app, server, weights
from demo_api.config import Settings
from demo_api.messages import Engine
from demo_api.runner import DemoRunner


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The folder of the small model; downloaded on the first use on this machine."""
    return weights.pull(Settings.load().model_dir)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings whose state is in the test's own folder, from the real environment and some flags."""

    def make(**flags: object) -> Settings:
        return Settings.load({"state_dir": tmp_path / "state", "stop_grace": 2, "port": 0} | flags)

    return make


@pytest.fixture
def child_settings(settings: Callable[..., Settings], tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings for a demo home whose demo is one of ``tests/children``."""

    def make(child: str, generation: str = "2025", **flags: object) -> Settings:
        home = make_home(tmp_path / f"home-{child}", child, generation=generation)
        model = tmp_path / "Llama-3.2-1B-Instruct"
        model.mkdir(exist_ok=True)
        variable = "llama_dir" if generation == "2025" else "hf_model"
        return settings(**({"demo_home": home, variable: str(model)} | flags))

    return make


@dataclass(frozen=True)
class Server:
    """A real server in this process, on a port of its own."""

    url: str
    settings: Settings

    def chat(self, prompt: str = "Hello", **fields: object) -> requests.Response:
        return requests.post(f"{self.url}/chat", json={"prompt": prompt, **fields}, timeout=100)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=10)

    def leftovers(self) -> list[psutil.Process]:
        """The living processes of this server's runs."""
        runs = self.settings.state_dir / "runs"
        return [process for process in psutil.process_iter() if _run_id(process) in _names(runs)]


def _names(runs: Path) -> set[str]:
    return {folder.name for folder in runs.iterdir()} if runs.exists() else set()


def _run_id(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("DEMO_API_RUN")
    except psutil.Error:
        return None


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers for settings, and stops them when the test ends."""
    running = []

    def start(settings: Settings, engine: Engine | None = None) -> Server:
        app = create_app(settings, engine or DemoRunner(settings))
        bound = server.bind(app, settings)
        thread = threading.Thread(target=bound.run)
        thread.start()
        running.append((app.extensions["demo_api"], bound, thread))
        return Server(f"http://127.0.0.1:{bound.effective_port}", settings)

    yield start
    for dispatcher, bound, thread in running:
        stopper = threading.Timer(3, dispatcher.hurry)
        stopper.start()
        dispatcher.close()
        stopper.cancel()
        bound.task_dispatcher.shutdown()
        bound.pull_trigger()
        bound.asyncore.close_all(bound._map)
        thread.join()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DEMO_API_*, LLAMA_DIR or HF_MODEL of the person who runs the tests, except where the small model is."""
    for name in list(os.environ):
        if (name.startswith("DEMO_API_") and name != "DEMO_API_MODEL_DIR") or name in ("LLAMA_DIR", "HF_MODEL"):
            monkeypatch.delenv(name)
