"""Every answer to any request is one that the OpenAPI document declares: a real server, a real port, all checks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from any_request import ask
from conftest import Server
from echo_engine import EchoEngine
from echo_model import EchoModel

from demo_api.config import Settings
from demo_api.direct import Direct

SEED = 1
EXAMPLES = 5


@pytest.fixture(params=["demo", "direct"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    """A server of each engine, with a hand-written model that echoes."""
    if request.param == "demo":
        return serve(settings(max_queue=1000), EchoEngine(settings().state_dir))
    chosen = settings(engine="direct")
    direct = Direct(EchoModel(), chosen)
    direct.start()
    direct.wait_until_loaded()
    return serve(chosen, direct)


def test_every_answer_is_one_that_the_document_declares(server: Server) -> None:
    asked = ask(server.url, examples=EXAMPLES, seed=SEED)
    assert asked.found_nothing, asked.told
    assert asked.cases > 300


class LyingEngine(EchoEngine):
    def describe(self) -> dict[str, object]:
        return {"model": 5, "model_loaded": True}


def test_an_answer_that_the_document_does_not_declare_is_found(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(), LyingEngine(settings().state_dir))
    asked = ask(server.url, examples=1, seed=SEED, only="get_health")
    assert not asked.found_nothing
    assert "Response violates schema" in asked.told
    assert '"model":5' in asked.told
