"""What is shown of a lab, by a real PostgreSQL: the workers that live, and the runs of each model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.databases import OpenLedger
from support.lab import Enlist, device
from support.serving import Server

from demo_api.config import Settings
from demo_api.demo.capabilities import Capabilities
from demo_api.messages import Request
from demo_api.messages.health import DeviceHealth, PoolHealth
from demo_api.queue import Ledger
from demo_api.queue.lab import describe_nodes, describe_pools
from demo_api.queue.pools import Pools


@pytest.fixture
def url(postgresql_schema: str) -> str:
    """Only PostgreSQL has workers."""
    return postgresql_schema


@pytest.fixture
def nodes(open_ledger: OpenLedger, tmp_path: Path) -> tuple[Ledger, Ledger]:
    """The ledgers of two state folders that share one database."""
    return open_ledger(state_dir=tmp_path / "one"), open_ledger(state_dir=tmp_path / "other")


def pools(ledger: Ledger) -> list[tuple[str | None, int, int, int, int]]:
    """Each with its model, workers, devices, waiting and running."""
    found: list[PoolHealth] = describe_pools(ledger.workers.live(), ledger.history)
    return [(each["model"], each["workers"], each["devices"], each["waiting"], each["running"]) for each in found]


def submit(ledger: Ledger, pool: str | None) -> None:
    ledger.queue.submit([Request.model_validate({"prompt": "Hello"})], pool=pool)


def test_a_worker_is_shown_as_long_as_its_session_lives(nodes: tuple[Ledger, Ledger], enlist: Enlist) -> None:
    one, other = nodes
    session = enlist(one, "llama", device("left"), device("right", "failed"))
    enlist(other, "qwen", device("left"))
    shown = [(node["node"], node["model"], len(node["devices"])) for node in describe_nodes(other.workers.live())]
    assert shown == sorted([(one.workers.node, "llama", 2), (other.workers.node, "qwen", 1)])
    assert pools(other) == [("llama", 1, 2, 0, 0), ("qwen", 1, 1, 0, 0)]
    session.close()
    assert [node["model"] for node in describe_nodes(one.workers.live())] == ["qwen"]
    assert pools(one) == [("qwen", 1, 1, 0, 0)]


WARM = {
    "warm": (device("left", warm="imports"), True, True),
    "warm, but at work": (device("left", "busy", warm="model"), True, False),
    "cold": (device("left"), True, False),
    "of another model": (device("left", warm="model"), False, False),
}


@pytest.mark.parametrize(("there", "of_this_model", "is_warm"), WARM.values(), ids=WARM)
def test_a_worker_knows_whether_another_waits_with_a_warm_child(
    nodes: tuple[Ledger, Ledger],
    enlist: Enlist,
    child_settings: Callable[..., Settings],
    there: DeviceHealth,
    of_this_model: bool,
    is_warm: bool,
) -> None:
    one, other = nodes
    own = Capabilities(child_settings("passes"))
    enlist(other, own.model_name() if of_this_model else "qwen", there)
    assert Pools(one.workers, own).is_warm_elsewhere() is is_warm
    assert not Pools(other.workers, own).is_warm_elsewhere()  # that is its own


def test_the_clock_of_a_host_does_not_matter(
    nodes: tuple[Ledger, Ledger], enlist: Enlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = nodes
    monkeypatch.setattr("time.time", lambda: 0.0)
    session = enlist(one, "llama", device("left"))
    (worker,) = other.workers.live()
    assert 0 <= worker.seconds < 60
    assert worker.since > 1e9
    session.close()
    other.workers.note_gone()
    ((_, gone_at),) = other.workers.known()
    assert gone_at is not None
    assert gone_at > 1e9


def test_a_model_whose_workers_are_gone_is_shown_while_runs_wait_for_it(
    nodes: tuple[Ledger, Ledger], enlist: Enlist
) -> None:
    one, other = nodes
    session = enlist(one, "llama", device("left"))
    submit(other, "llama")
    submit(other, "llama")
    assert one.queue.claim("left", lambda runs: list(runs[:1]), pool="llama")
    session.close()
    assert pools(other) == [("llama", 0, 0, 1, 1)]


def test_runs_that_any_worker_may_take_count_every_worker_as_theirs(
    nodes: tuple[Ledger, Ledger], enlist: Enlist
) -> None:
    one, other = nodes
    enlist(one, "llama", device("left"), device("right"))
    enlist(other, "qwen", device("left"))
    submit(one, None)
    assert pools(one) == [("llama", 1, 2, 0, 0), ("qwen", 1, 1, 0, 0), (None, 2, 3, 1, 0)]


def samples(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            place = sample.name, frozenset(sample.labels.items())
            assert place not in found, place  # Prometheus would drop the second
            found[place] = sample.value
    return found


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_device_that_two_servers_of_a_node_share_is_one_in_health_and_metrics(
    serve: Callable[..., Server],
    settings: Callable[..., Settings],
    url: str,
    nodes: tuple[Ledger, Ledger],
    enlist: Enlist,
) -> None:
    _, other = nodes
    enlist(other, "llama", device("left"), device("right", "failed"))
    enlist(other, "llama", device("left"), device("right", "failed"))
    submit(other, "any")
    submit(other, None)
    server = serve(settings(database_url=url, devices="none"))
    shown = server.get("/health").json()
    assert len(shown["nodes"]) == 2
    assert [(pool["model"], pool["workers"], pool["devices"]) for pool in shown["pools"]] == [
        ("any", 0, 0),
        ("llama", 2, 2),
        (None, 2, 2),
    ]
    found = samples(server)
    for state in ("free", "failed"):
        assert found[of("demo_api_lab_devices", node=other.workers.node, model="llama", state=state)] == 1
    assert found[of("demo_api_pool_workers", model="llama")] == 2
    assert found[of("demo_api_pool_workers", model="any")] == 0
    assert found[of("demo_api_pool_waiting", model="any")] == 1
    assert found[of("demo_api_pool_workers", model="")] == 2  # it waits for whoever comes, so nobody is missing
    assert found[of("demo_api_pool_waiting", model="")] == 1
