"""Fixtures: the small model, demo homes, and real servers on real ports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from support.demo_homes import make_home
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.serving import Server, clean_environ, serving
from support.stranger import strangers

from demo_api.config import Settings
from demo_api.demo import small_model as weights
from demo_api.direct import DirectEngine

pytest_plugins = ["support.databases", "support.lab"]


MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    """Gives each worker of pytest-xdist a processor of its own, for its children too: llama.cpp's threads wait for each
    other busily, so two models that share two processors are many times slower than two that have one each.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[int(worker.removeprefix("gw")) % len(usable)]})
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("busy machine", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("busy machine")
    if _has_memory_for_files():  # on a disk, every commit of every ledger would wait for it
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _has_memory_for_files() -> bool:
    try:
        disk = os.statvfs(MEMORY)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize > 4 * 2**30 and not disk.f_flag & os.ST_NOEXEC


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


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers for settings, and stops them when the test ends."""
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def cpu_server(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[Server]:
    """One server for the tests of a file: the CPU edition of the demo, with the real small model."""
    flags = {"state_dir": tmp_path_factory.mktemp("state"), "llama_dir": model_dir, "drain": 0, "port": 0}
    with serving() as start:
        yield start(Settings.load(flags, clean_environ()))


@pytest.fixture(params=["demo", "direct"])
def server_of_each_engine(
    request: pytest.FixtureRequest, serve: Callable[..., Server], settings: Callable[..., Settings]
) -> Server:
    """A server of each engine, with a hand-written model that echoes."""
    if request.param == "demo":
        return serve(settings(max_queue=1000), EchoRunner())
    chosen = settings(engine="direct")
    direct = DirectEngine(EchoModel(), chosen)
    direct.start()
    direct.wait_until_loaded()
    return serve(chosen, direct)


@pytest.fixture
def stranger() -> Iterator[Callable[..., str]]:
    """Starts other programs than ours, each with one answer for everybody, and gives their addresses."""
    with strangers() as start:
        yield start


@pytest.fixture(autouse=True)
def _folder_goes_last(tmp_path: Path) -> Path:
    """Pytest removes the folder of a test that has passed: what was started in it has ended by then."""
    return tmp_path


@pytest.fixture(autouse=True)
def _no_model_of_the_tester(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests counts, except where the small model is."""
    for name in os.environ.keys() - clean_environ().keys():
        monkeypatch.delenv(name)
