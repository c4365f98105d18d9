"""Fixtures: the small model, demo homes, and real servers on real ports."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from demo_homes import make_home

from demo_api import create_app, weights
from demo_api.config import Settings
from demo_api.direct import Direct
from demo_api.engine import Engine
from demo_api.process_tree import survivors
from demo_api.server import HttpServer
from demo_api.service import Service

pytest_plugins = ["databases"]


def pytest_configure() -> None:
    """Gives each worker of pytest-xdist a processor of its own, for its children too: llama.cpp's threads wait for each
    other busily, so two models that share two processors are many times slower than two that have one each.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[int(worker.removeprefix("gw")) % len(usable)]})


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The folder of the small model; downloaded on the first use on this machine."""
    return weights.pull(Settings.load().model_dir)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings whose state is in the test's own folder, from the real environment and some flags."""

    def make(**flags: object) -> Settings:
        return Settings.load({"state_dir": tmp_path / "state", "stop_grace": 2, "drain": 0, "port": 0} | flags)

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
    service: Service

    def chat(self, prompt: str = "Hello", **fields: object) -> requests.Response:
        return requests.post(f"{self.url}/chat", json={"prompt": prompt, **fields}, timeout=100)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=10)

    def batches(self) -> list[Path]:
        """The folders of its batches, without that of the child that waits for one."""
        waiting = self.settings.device_list[0].waiting()
        return [folder for folder in (self.settings.state_dir / "runs").iterdir() if folder.name != waiting]

    def leftovers(self) -> list[psutil.Process]:
        """The living processes of this server's batches."""
        return survivors("DEMO_API_RUN", [folder.name for folder in self.batches()])


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers for settings, and stops them when the test ends."""
    with serving() as start:
        yield start


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """The same, until the end of the block."""
    running = []

    def start(settings: Settings, engine: Engine | Direct | None = None) -> Server:
        app = create_app(settings, engine)
        service: Service = app.extensions["demo_api"]
        service.start()
        http = HttpServer(app, settings)
        thread = threading.Thread(target=http.run)
        thread.start()
        running.append((service, http, thread))
        return Server(http.url, settings, service)

    yield start
    for service, http, thread in running:
        hurry = threading.Timer(3, service.hurry)
        hurry.start()
        service.close()
        hurry.cancel()
        hurry.join()
        http.close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_model_of_the_tester(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests counts, except where the small model is."""
    for name in os.environ.keys() - clean_environ().keys():
        monkeypatch.delenv(name)


def clean_environ() -> dict[str, str]:
    """The environment without the tester's settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "DEMO_API_MODEL_DIR" or not name.startswith(("DEMO_API_", "LLAMA_DIR", "HF_MODEL"))
    }
