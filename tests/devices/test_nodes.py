"""Servers on several state folders that share one database: two hosts, as far as the database can tell."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.databases import insert, make_tables
from support.demo_homes import make_home
from support.real_server import RealServer, Site
from support.waiting import until

StartNode = Callable[..., RealServer]

OLDER_RUN_ID = "20261126-130810-e624a858"


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that both nodes use."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    url: str = request.getfixturevalue("postgresql_schema")
    return url


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def start_node(site: Site, tmp_path: Path, shared_url: str) -> Iterator[StartNode]:
    """Starts a server on a state folder of its own, whose children end after each batch."""
    with ExitStack() as servers:

        def start(name: str, **settings: object) -> RealServer:
            state = tmp_path / name
            common = {"database_url": shared_url, "warm": "off", "max_batch": 1, "lease": 4, "stop_grace": 1}
            return servers.enter_context(site.serving(state_dir=state, **common, **settings))

        yield start


def test_two_nodes_with_devices_of_one_name_run_every_run_once(
    site: Site, start_node: StartNode, shared_url: str, model_dir: Path
) -> None:
    for name in ("DEMO_API_DEMO_HOME", "LLAMA_DIR"):  # the CPU edition, with its real model
        del site.environ[name]
    nodes = [start_node("one"), start_node("other")]
    accepted = [nodes[number % 2].submit(f"What is {number}+{number}?", max_tokens=2) for number in range(6)]
    runs = [nodes[0].ending(run_id) for run_id in accepted]
    assert [(run["status"], run["attempts"]) for run in runs] == [("succeeded", 1)] * 6
    for run_id in accepted:
        logs = [node.get(f"/runs/{run_id}/log") for node in nodes]
        if shared_url.startswith("postgresql"):
            assert logs[0].text == logs[1].text
            assert "=== 1 passed" in logs[0].text
            continue
        refusal = next(log.json() for log in logs if log.status_code == 404)
        assert [log.status_code for log in logs].count(200) == 1
        assert refusal["code"] == "no_log"
        assert re.search(r"is on another host: the node \S+ has it", refusal["error"])
        assert re.search(r"runs/\S+ in its state folder", refusal["next_step"])


def test_a_run_is_run_with_the_demo_and_the_model_of_the_node_that_claims_it(
    site: Site, start_node: StartNode, tmp_path: Path
) -> None:
    accepts = start_node("one")
    busy = accepts.submit("hang")
    until((site.home / "done: hang").exists)
    # Elsewhere than here, but of the same name: on PostgreSQL a run goes to those that have its model.
    other_home, other_model = make_home(tmp_path / "other home", "obeys_its_prompt"), tmp_path / "other" / "model"
    other_model.mkdir(parents=True)
    site.environ["LLAMA_DIR"] = str(other_model)
    start_node("other", demo_home=other_home)
    run = accepts.ending(accepts.submit("Hello"))
    assert (run["response"], run["attempts"]) == ("ok: Hello", 1)
    assert json.loads((other_home / "answered").read_text()) == ["Hello"]
    assert accepts.run(busy)["status"] == "running"
    assert not (site.home / "answered").exists()


def test_a_run_that_waits_in_an_older_database_is_run_here_whatever_paths_it_has(
    start_node: StartNode, shared_url: str
) -> None:
    make_tables(shared_url, "0001")
    gone = dict.fromkeys(("demo_home", "python", "llama_dir", "model_dir"), "/gone") | {"hf_model": None}
    request = {"prompt": "Hello", "max_tokens": 128, "temperature": None, "top_p": 0.9, "seed": None}
    at = time.time()
    row = {"run_id": OLDER_RUN_ID, "status": "queued", "attempts": 0, "last_event": 1}
    row |= {"request": json.dumps(request), "demo": json.dumps(gone), "alike": json.dumps([request, gone])}
    row |= {"accepted_at": at, "accepted_clock": 0.0}
    event = {"run_number": 1, "number": 1, "kind": "queued", "at": at, "data": json.dumps({"position": 1})}
    insert(shared_url, "runs", row)
    insert(shared_url, "events", event)
    run = start_node("newer").ending(OLDER_RUN_ID)
    assert (run["status"], run["response"], run["model"]) == ("succeeded", "ok: Hello", "model")


def test_the_run_of_a_node_that_is_gone_goes_on_at_another(site: Site, start_node: StartNode) -> None:
    dead = start_node("one")
    run_id = dead.submit("hang")
    until((site.home / "done: hang").exists)
    idle = start_node("other")
    dead.kill()
    run = idle.ending(run_id)
    assert (run["status"], run["response"], run["attempts"]) == ("succeeded", "ok: hang", 2)
    other = start_node("third")
    shown = other.post("/chat", {"prompt": "Hello"}).json()
    log = other.get(f"/runs/{shown['run_id']}/log")
    assert shown["output"] == (log.text if log.status_code == 200 else None)  # either of the two may have run it
