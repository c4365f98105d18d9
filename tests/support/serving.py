"""Real servers in this process, on real ports."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
from flask import Flask
from support.echo_runner import EchoRunner
from support.waiting import join

from demo_api import create_app
from demo_api.config import Settings
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.demo_engine import DemoEngine
from demo_api.devices.lock import devices_of
from demo_api.direct import DirectEngine
from demo_api.process.tree import survivors
from demo_api.queue import Ledger
from demo_api.web.engine import Engine
from demo_api.web.server import HttpServer


@dataclass(frozen=True)
class Server:
    """A real server in this process, on a port of its own."""

    url: str
    settings: Settings
    service: Engine

    def chat(self, prompt: str = "Hello", **fields: object) -> requests.Response:
        return requests.post(f"{self.url}/chat", json={"prompt": prompt, **fields}, timeout=100)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=60)

    def batches(self) -> list[Path]:
        """The folders of its batches, without that of the child that waits for one."""
        folders = [RunFolder(path) for path in self.settings.runs_dir.iterdir()]
        waits = devices_of(self.settings)[0].waiting() is not None
        return [folder.path for folder in folders if not (waits and folder.plugin_config.exists())]

    def leftovers(self) -> list[psutil.Process]:
        """The living processes of this server's batches."""
        waiting = devices_of(self.settings)[0].waiting()
        return survivors("DEMO_API_RUN", {folder.name for folder in self.batches()} - {waiting})


def application(settings: Settings, engine: EchoRunner | DirectEngine | None = None) -> Flask:
    """The WSGI application around an engine; a hand-written runner is given a queue of its own."""
    if engine is None or isinstance(engine, DirectEngine):
        return create_app(settings, engine)
    return create_app(settings, DemoEngine(Ledger(settings), engine, [engine], settings))


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Starts servers, which run until the end of the block."""
    running: list[tuple[Engine, HttpServer, threading.Thread]] = []

    def start(settings: Settings, engine: EchoRunner | DirectEngine | None = None) -> Server:
        app = application(settings, engine)
        service: Engine = app.extensions["demo_api"]
        service.start()
        http = HttpServer(app, settings)
        thread = threading.Thread(target=http.run)
        thread.start()
        running.append((service, http, thread))
        return Server(http.url, settings, service)

    try:
        yield start
    finally:
        _stop(running)


def _stop(running: list[tuple[Engine, HttpServer, threading.Thread]]) -> None:
    for service, http, thread in running:
        hurry = threading.Timer(3, service.hurry)
        hurry.start()
        service.close()
        hurry.cancel()
        http.close()
        join(hurry, thread)


def clean_environ() -> dict[str, str]:
    """The environment without the tester's settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "DEMO_API_MODEL_DIR" or not name.startswith(("DEMO_API_", "LLAMA_DIR", "HF_MODEL"))
    }
