"""gunicorn with several workers: one ledger, one device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from support.real_server import GUNICORN, Site
from support.waiting import at_once, until

FOUR_WORKERS = [*GUNICORN, "-w", "4", "--threads", "8"]
CLIENTS = 40


@pytest.mark.parametrize("max_batch", [1, 32], ids=["one by one", "in batches"])
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["made in each worker", "made before the fork"])
def test_clients_of_four_workers_all_get_their_own_answers(tmp_path: Path, preload: list[str], max_batch: int) -> None:
    site = Site(tmp_path)
    answers: dict[str, requests.Response] = {}

    def ask(prompt: str) -> Callable[[], None]:
        return lambda: answers.update({prompt: server.chat(prompt)})

    prompts = [f"client {number}" for number in range(CLIENTS)]
    with site.serving([*FOUR_WORKERS, *preload], max_queue=100, max_batch=max_batch) as server:
        at_once(ask(prompt) for prompt in prompts)
        for prompt in prompts:
            assert answers[prompt].status_code == 200, answers[prompt].text
            assert answers[prompt].json()["response"] == f"ok: {prompt}"
        assert len({answer.json()["run_id"] for answer in answers.values()}) == CLIENTS
        for answer in answers.values():
            server.ending(answer.json()["run_id"])
        until(server.is_idle)
        assert site.processes() == []
    assert site.overlaps() == ""
    site.check_ledger()


def test_four_workers_make_a_new_ledger_together(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        with site.serving(FOUR_WORKERS) as server:
            assert server.chat("Hello").status_code == 200
            assert "Traceback" not in server.log()
        site.check_ledger()
