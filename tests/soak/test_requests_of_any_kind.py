"""Ten thousand requests of any kind to both engines: every answer is one that the OpenAPI document declares."""

from __future__ import annotations

import os
import random

import pytest
from support.any_request import ask
from support.serving import Server

SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
CASES = 5_000


@pytest.mark.timeout(3600)
def test_every_answer_is_one_that_the_document_declares(
    server_of_each_engine: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ask(server_of_each_engine.url, examples=700, seed=SEED, timeout=3500)
    with capsys.disabled():
        print(f" {asked.cases} cases, SOAK_SEED={SEED};", end="")
    assert asked.found_nothing, asked.report
    assert asked.cases >= CASES
