"""OpenAI's official client, of servers with a hand-written model that echoes."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from support.echo_model import EchoModel
from support.serving import Server, serving

from demo_api.config import Settings
from demo_api.direct import DirectEngine


@pytest.fixture
def client(server_of_each_engine: Server) -> Iterator[openai.OpenAI]:
    """The client of a server of each engine; it tries once."""
    url = f"{server_of_each_engine.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def echo() -> EchoModel:
    """The model of ``direct``."""
    return EchoModel()


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, echo: EchoModel) -> Iterator[openai.OpenAI]:
    """The client of one direct server, for tables of requests; it tries once."""
    chosen = Settings.load({"engine": "direct", "state_dir": tmp_path_factory.mktemp("state"), "port": 0}, {})
    engine = DirectEngine(echo, chosen)
    engine.start()
    engine.wait_until_loaded()
    with serving() as start:
        url = f"{start(chosen, engine).url}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            yield client
