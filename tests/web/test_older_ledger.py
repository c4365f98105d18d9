"""An older ledger, in which the last event of a run has a copy of how it ended, opens and is complete."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.databases import insert, make_tables
from support.echo_runner import EchoRunner
from support.serving import Server
from support.sse import events

from demo_api.config import Settings

RUN_ID = "20261126-130810-e624a858"
SAMPLING = {"max_tokens": 128, "temperature": None, "top_p": 0.9, "seed": None}
COMMON = {"run_id": RUN_ID, "model": "m", "device": "CPU", "exit_code": 0, "log_folder": "/f", "note": None}
ENDS: dict[str, dict[str, Any]] = {
    "succeeded": {
        "answer": {"response": "4", "tokens_generated": 1, "prompt_tokens": None},
        "failure": None,
        "timing": {"held": True, "queue_seconds": 0.5},
        "finish_reason": "stop",
    },
    "failed": {
        "answer": None,
        "failure": {"code": "demo_failed", "message": "It failed.", "next_step": None},
        "timing": {"held": False, "queue_seconds": 0.5},
        "finish_reason": None,
    },
}


def make_older_ledger(path: Path, status: str, *, damaged: str | None = None) -> None:
    """What the first version of the tables had after one run.

    Args:
        damaged: what stands in the place of the run's result.
    """
    at, result = time.time(), {**COMMON, **ENDS[status]}
    run = {
        "run_id": RUN_ID,
        "status": status,
        "request": json.dumps({**SAMPLING, "prompt": "What is 2+2?"}),
        "demo": "{}",
        "alike": json.dumps([SAMPLING, {}]),
        "accepted_at": at,
        "accepted_clock": 6611.2,
        "started_at": at,
        "finished_at": at,
        "waited_seconds": 0.045,
        "time_seconds": 0.087,
        "attempts": 1,
        "batch_id": "20261126-130810-a8d55a49",
        "last_event": 2,
        "result": json.dumps(result) if damaged is None else damaged,
    }
    told = [
        {"number": 1, "kind": "queued", "at": at, "data": json.dumps({"position": 1})},
        {"number": 2, "kind": "done", "at": at, "data": json.dumps({"status": status, "timing": result["timing"]})},
    ]
    path.parent.mkdir(parents=True)
    url = f"sqlite:///{path}"
    make_tables(url, "0001")
    insert(url, "runs", run)
    for event in told:
        insert(url, "events", {"run_number": 1, **event})


@pytest.mark.parametrize("status", ENDS)
def test_the_events_of_an_older_ledger_end_with_all_that_the_run_says(
    serve: Callable[..., Server], settings: Callable[..., Settings], status: str
) -> None:
    make_older_ledger(settings().state_dir / "ledger.db", status)
    server = serve(settings(), EchoRunner())
    record = server.get(f"/runs/{RUN_ID}").json()
    assert record["timing"]["warm"] == ("imports" if status == "succeeded" else "off")
    (_, first, _), (number, last, data) = events(f"{server.url}/runs/{RUN_ID}/events")
    assert (first, number, last) == ("queued", 2, "done")
    assert data.pop("at") == pytest.approx(time.time(), abs=60)
    assert data == {name: record[name] for name in data}
    ending = {"response", "prompt_tokens", "tokens_generated", "tokens_per_second", "finish_reason", "note"}
    if status == "failed":
        ending = {"error", "code", "next_step", "exit_code"}
    assert set(data) == {"run_id", "status", "time_seconds", "success", "model", "device", "timing"} | ending
    assert server.chat("next").json()["response"] == "next"


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"timing": null}', '{"timing": {"held": []}}'])
def test_a_damaged_result_does_not_keep_an_older_ledger_from_being_opened(
    serve: Callable[..., Server], settings: Callable[..., Settings], damaged: str
) -> None:
    make_older_ledger(settings().state_dir / "ledger.db", "succeeded", damaged=damaged)
    assert serve(settings(), EchoRunner()).chat("next").json()["response"] == "next"
