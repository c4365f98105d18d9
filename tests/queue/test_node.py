"""Nodes: the name of a state folder, and what one node knows of another's devices and batches."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from support.databases import OpenLedger, in_processes

from demo_api.config import Settings
from demo_api.errors import SetupError
from demo_api.messages import Answer, Batch, Request, Result
from demo_api.queue import Database, Ledger, Node
from demo_api.queue.schema import batches as batch_table
from demo_api.queue.schema import devices as device_table


def submit(ledger: Ledger, prompt: str = "Hello") -> str:
    return ledger.queue.submit([Request.model_validate({"prompt": prompt})])[0].run_id


def claim(ledger: Ledger) -> Batch:
    batch = ledger.queue.claim("device", list)
    assert batch is not None
    return batch


@pytest.fixture
def nodes(open_ledger: OpenLedger, tmp_path: Path) -> tuple[Ledger, Ledger]:
    """The ledgers of two state folders that share one database."""
    return open_ledger(state_dir=tmp_path / "one"), open_ledger(state_dir=tmp_path / "other")


def _name(folder: Path) -> str:
    return Node.of(folder).name


def test_a_folder_has_one_name_whoever_asks(tmp_path: Path) -> None:
    names = set(in_processes(6, _name, tmp_path / "one"))
    assert len(names) == 1
    assert Node.of(tmp_path / "other").name not in names
    assert [each.name for each in (tmp_path / "one").iterdir()] == ["node"]


@pytest.mark.parametrize("damage", [b"", b"a/b\n", b"\xff\x00", b"x" * 100], ids=["empty", "slash", "bytes", "long"])
def test_a_damaged_name_is_set_aside_and_made_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "node").write_bytes(damage)
    name = Node.of(tmp_path).name
    assert Node.of(tmp_path).name == name
    assert [each.read_bytes() for each in tmp_path.glob("node.damaged-*")] == [damage]


@pytest.mark.parametrize(
    ("given", "begins"), [(None, ""), ("rack 3/left", "rack-3-left-"), ("box.example", "box-example-")]
)
def test_a_new_node_is_named_for_people(
    settings: Callable[..., Settings], tmp_path: Path, given: str | None, begins: str
) -> None:
    with closing(Ledger(settings(state_dir=tmp_path, node=given))) as ledger:
        assert re.fullmatch(f"{begins}[A-Za-z0-9_-]*[0-9a-f]{{8}}", ledger.workers.node)
    with closing(Ledger(settings(state_dir=tmp_path, node="later"))) as again:
        assert again.workers.node == ledger.workers.node


@pytest.mark.parametrize(
    "put",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/hostname")],
    ids=["pipe", "folder", "link"],
)
def test_what_is_no_file_is_set_aside(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "node")
    name = Node.of(tmp_path).name
    assert (tmp_path / "node").read_text() == f"{name}\n"
    assert len(list(tmp_path.glob("node.damaged-*"))) == 1


def test_a_folder_that_cannot_be_used_is_said_so() -> None:
    with pytest.raises(SetupError, match="/proc/none"):
        Node.of(Path("/proc/none"))


def test_a_node_does_not_take_anothers_open_batch_for_its_own(nodes: tuple[Ledger, Ledger]) -> None:
    one, other = nodes
    run_id = submit(one)
    batch = claim(one)
    assert one.queue.batches("device", "open") == [batch.batch_id]
    assert other.queue.batches("device", "open") == []
    assert other.queue.work("device") == (False, False)
    assert one.queue.node_of(batch.batch_id) == other.queue.node_of(batch.batch_id) == one.workers.node
    assert one.queue.finish(batch.batch_id, [Result(run_id, Answer("yes", 1))], 1)


def test_the_batch_of_a_node_that_is_gone_is_lost_to_the_others(
    nodes: tuple[Ledger, Ledger], database: Database
) -> None:
    one, other = nodes
    run_id = submit(one)
    batch = claim(one)
    _let_leases_end(database)

    assert other.queue.recover() == [batch.batch_id]
    assert [run.run_id for run in claim(other).runs] == [run_id]
    assert not one.queue.beat(batch.batch_id)
    assert one.queue.batches("device", "lost") == [batch.batch_id]
    assert other.queue.batches("device", "lost") == []


def test_after_the_database_was_away_nobody_is_lost_for_a_lease(
    nodes: tuple[Ledger, Ledger], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_api.queue.database._AWAY_SECONDS", 0.0)  # whatever was last used was away since
    one, other = nodes
    submit(one)
    batch = claim(one)
    _let_leases_end(database)
    assert other.queue.work("device") == (False, False)
    assert other.queue.recover() == []
    assert one.queue.beat(batch.batch_id)
    _let_leases_end(database)
    assert other.queue.recover([batch.batch_id]) == [batch.batch_id]  # a lock that is free is proof at any time


def test_devices_of_one_name_have_states_of_their_own(nodes: tuple[Ledger, Ledger]) -> None:
    one, other = nodes
    one.devices.set("device", "failed", "It does not answer.")
    assert (one.devices.get("device").state, other.devices.get("device").state) == ("failed", "free")
    other.devices.set("device", "suspect", "A child was killed.")
    assert (one.devices.get("device").state, other.devices.get("device").state) == ("failed", "suspect")


def test_what_was_written_before_there_were_nodes_is_known(nodes: tuple[Ledger, Ledger], database: Database) -> None:
    one, _ = nodes
    submit(one)
    batch = claim(one)
    with database.write() as connection:
        connection.execute(update(batch_table).values(device="device"))
        old = {"name": "device", "state": "failed", "reason": "It did not answer.", "since": 1.0}
        connection.execute(insert(device_table).values(old))
    assert one.devices.get("device").reason == "It did not answer."
    assert one.queue.batches("device", "open") == [batch.batch_id]
    assert one.queue.node_of(batch.batch_id) is None
    one.devices.set("device", "free")
    assert one.devices.get("device").state == "free"


def _let_leases_end(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(batch_table).values(lease_until=batch_table.c.lease_until - 21))
