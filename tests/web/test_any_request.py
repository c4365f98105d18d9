"""Every answer to any request is one that the OpenAPI document declares: a real server, a real port, all checks."""

from __future__ import annotations

from collections.abc import Callable

from support.any_request import ask
from support.echo_runner import EchoRunner
from support.serving import Server

from demo_api.config import Settings

SEED = 1
EXAMPLES = 1  # beside the thousand that go through the schema; the soak has more


def test_every_answer_is_one_that_the_document_declares(server_of_each_engine: Server) -> None:
    asked = ask(server_of_each_engine.url, examples=EXAMPLES, seed=SEED)
    assert asked.found_nothing, asked.report
    assert asked.cases > 300


class LyingEngine(EchoRunner):
    def describe(self) -> dict[str, object]:
        return {"model": 5, "model_loaded": True}


def test_an_answer_that_the_document_does_not_declare_is_found(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(), LyingEngine())
    asked = ask(server.url, examples=1, seed=SEED, only="get_health")
    assert not asked.found_nothing
    assert "Response violates schema" in asked.report
    assert '"model":5' in asked.report
