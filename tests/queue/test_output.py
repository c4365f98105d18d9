"""The copy of what children print, in PostgreSQL: whole, in order, and gone with its run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from demo_api.config import Settings
from demo_api.demo import run_folder
from demo_api.demo.run_folder import RunFolder, readable
from demo_api.devices.output_copy import OutputCopy
from demo_api.messages import Answer, Request, Result
from demo_api.queue import Ledger
from demo_api.queue.output import PIECE_BYTES
from demo_api.queue.schema import output as output_table
from demo_api.queue.schema import runs as run_table

BATCH_ID = "20261127-100000-00000000"


@pytest.fixture
def ledger(tmp_path: Path, postgresql_schema: str) -> Iterator[Ledger]:
    settings = Settings.load(
        {"state_dir": str(tmp_path / "state"), "database_url": postgresql_schema, "keep_runs": "1"}
    )
    opened = Ledger(settings)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", BATCH_ID)


def copied(ledger: Ledger, stream: str = "stderr") -> bytes | None:
    """What the database has of it."""
    stored = ledger.output.stream(BATCH_ID, stream)
    return stored.read(0, stored.size) if stored else None


def test_output_is_copied_as_it_grows(ledger: Ledger, folder: RunFolder) -> None:
    copy = OutputCopy(ledger.output, folder)
    copy.catch_up()  # there is no child yet
    assert copied(ledger) is None
    whole = b""
    for part in ("Größe\n".encode()[:3], "Größe\n".encode()[3:], b"", b"x" * (2 * PIECE_BYTES + 1), b"the end\n"):
        whole += part
        folder.stderr.write_bytes(whole)
        copy.catch_up()
        assert copied(ledger) == whole
    folder.stdout.write_bytes(b"1 passed\n")
    copy.catch_up()
    assert copied(ledger, "stdout") == b"1 passed\n"
    assert copied(ledger) == whole


def test_a_piece_that_was_written_although_it_seemed_to_fail_is_written_anew(ledger: Ledger, folder: RunFolder) -> None:
    ledger.output.append(BATCH_ID, "stderr", 0, b"the fir")
    folder.stderr.write_bytes(b"the first line\n")
    OutputCopy(ledger.output, folder).catch_up()
    assert copied(ledger) == b"the first line\n"


@pytest.mark.parametrize("bounds", [(0, 5), (3, 9), (4, 8), (7, 20), (12, 20), (0, 0)], ids=str)
def test_any_part_can_be_read(ledger: Ledger, bounds: tuple[int, int]) -> None:
    whole = b"abcdefghijkl"
    for number in range(3):
        ledger.output.append(BATCH_ID, "stderr", number, whole[number * 4 : number * 4 + 4])
    stored = ledger.output.stream(BATCH_ID, "stderr")
    assert stored is not None
    assert stored.read(*bounds) == whole[slice(*bounds)]


def test_a_long_log_is_shown_as_the_file_is_and_says_where_the_whole_is(ledger: Ledger, folder: RunFolder) -> None:
    line = b'{"text": "caf\\u00e9 ' + b"x" * 80 + b'\\n"}\n'
    folder.stderr.write_bytes(line * (3 * run_folder.READABLE_LIMIT // len(line)))
    OutputCopy(ledger.output, folder).catch_up()
    stored = ledger.output.stream(BATCH_ID, "stderr")
    assert stored is not None
    shown = readable(stored, "HERE")
    assert "the whole is HERE" in shown
    assert shown.replace("HERE", f"in {folder.stderr}") == folder.readable_log()


def test_the_output_goes_with_its_run(ledger: Ledger) -> None:
    batch_ids = []
    for prompt in ("old", "new"):
        (run,) = ledger.queue.submit([Request(prompt=prompt)])
        batch = ledger.queue.claim("device", list)
        assert batch is not None
        ledger.output.append(batch.batch_id, "stderr", 0, b"a line\n")
        ledger.queue.finish(batch.batch_id, [Result(run.run_id, Answer("yes", 1))], 1)
        batch_ids.append(batch.batch_id)
    database = ledger._database
    with database.write() as connection:
        connection.execute(update(run_table).values(finished_at=time.time() - 1000))
    ledger.history.prune()
    assert [ledger.output.stream(batch_id, "stderr") is not None for batch_id in batch_ids] == [False, True]
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(output_table)).scalar() == 1
