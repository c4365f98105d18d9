"""The copy of what children print, in PostgreSQL: the same from every door, whole, in order, and gone with its run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from support.databases import locked
from support.demo_homes import make_home
from support.echo_runner import EchoRunner
from support.lab import Lab
from support.waiting import join, until

from demo_api.config import Settings
from demo_api.demo import readable
from demo_api.demo.progress import Listener
from demo_api.demo.run_folder import RunFolder
from demo_api.demo.warm_child import WarmChild
from demo_api.devices import output_copy
from demo_api.devices.lock import DeviceLock, devices_of
from demo_api.devices.loop import DeviceLoop
from demo_api.devices.output_copy import OutputCopy
from demo_api.errors import LedgerUnavailable, NoLog
from demo_api.messages import Answer, Batch, Outcome, Request, Result, Run
from demo_api.queue import Ledger
from demo_api.queue.door import Door
from demo_api.queue.output import PIECE_BYTES
from demo_api.queue.schema import batches as batch_table
from demo_api.queue.schema import output as output_table
from demo_api.queue.schema import runs as run_table

MAX_OUTPUT = 4 * 2**20


@dataclass
class Host:
    """A state folder with its ledger and its door."""

    ledger: Ledger
    door: Door
    settings: Settings

    def claim(self, *prompts: str) -> Batch:
        self.ledger.queue.submit([Request(prompt=prompt) for prompt in prompts or ("Hello",)])
        batch = self.ledger.queue.claim("device", list)
        assert batch is not None
        return batch

    def folder(self, batch: Batch) -> RunFolder:
        return RunFolder.create(self.settings.runs_dir, batch.batch_id)

    def finish(self, batch: Batch) -> None:
        assert self.ledger.queue.finish(batch.batch_id, [Result(run.run_id, Answer("a", 1)) for run in batch.runs], 1)


@pytest.fixture
def host(url: str, tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """Makes hosts on one database."""
    made: list[Host] = []

    def make(name: str) -> Host:
        flags = {
            "state_dir": tmp_path / name,
            "database_url": url,
            "keep_runs": 1,
            "max_output": MAX_OUTPUT,
            "lease": 4,
        }
        settings = Settings.load(flags)
        ledger = Ledger(settings)
        made.append(Host(ledger, Door(ledger, EchoRunner(), settings), settings))
        return made[-1]

    yield make
    for each in made:
        each.door.close()
        each.ledger.close()


@pytest.fixture
def hosts(host: Callable[[str], Host]) -> tuple[Host, Host]:
    """One that runs batches, and another."""
    return host("own"), host("other")


on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


def rows(host: Host) -> int:
    with host.ledger._database.read() as connection:
        count: int = connection.execute(select(func.count()).select_from(output_table)).scalar_one()
    return count


def stored(host: Host, batch: Batch, stream: str = "stderr") -> bytes:
    """What the database has of the stream."""
    own = (output_table.c.batch_id == batch.batch_id) & (output_table.c.stream == stream)
    with host.ledger._database.read() as connection:
        pieces = connection.execute(select(output_table.c.data).where(own).order_by(output_table.c.number)).scalars()
        return b"".join(pieces)


def copy_of(host: Host, folder: RunFolder) -> OutputCopy:
    return OutputCopy(host.ledger.output, folder, MAX_OUTPUT)


# What a door shows


@on_postgresql
def test_another_door_shows_what_is_printed_while_the_batch_runs(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_copy, "COPY_SECONDS", 0.05)
    own, other = hosts
    batch = own.claim()
    (run,) = batch.runs
    with copy_of(own, RunFolder(own.settings.runs_dir / batch.batch_id)):
        with pytest.raises(NoLog, match="is on another host"):  # there is no child yet
            other.door.logs.of(run)
        folder = own.folder(batch)
        folder.stdout.touch()
        folder.stderr.touch()
        until(partial(shows, other, run, ""))
        for said in ("one\n", "one\ntwo\n"):
            folder.stderr.write_text(said)
            until(partial(shows, other, run, said))
        folder.stdout.write_text("1 passed\n")
    assert other.door.logs.of(run) == own.door.logs.of(run) == "one\ntwo\n1 passed\n"


def shows(host: Host, run: Run, text: str) -> bool:
    try:
        return host.door.logs.of(run) == text
    except NoLog:
        return False


SENTENCE = "Größe \U0001f600 café\n"


@on_postgresql
@pytest.mark.parametrize(
    ("stderr", "stdout"),
    [
        (b"", b""),
        (SENTENCE.encode() * (2 * PIECE_BYTES // len(SENTENCE.encode())), b"1 passed\n"),
        (b"x" * PIECE_BYTES, b"y" * (2 * PIECE_BYTES)),
        (b'{"text": "caf\\u00e9 ' + b"x" * 80 + b'\\n"}\n', b"\xff\x00 raw"),
        (b"no line ends" * (PIECE_BYTES // 4), b""),
    ],
    ids=["nothing", "characters across pieces", "whole pieces", "records and raw bytes", "one line"],
)
def test_the_log_of_an_ended_run_is_the_same_from_any_door(
    hosts: tuple[Host, Host], stderr: bytes, stdout: bytes
) -> None:
    own, other = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_bytes(stderr)
    folder.stdout.write_bytes(stdout)
    copy_of(own, folder).catch_up()
    own.finish(batch)
    (run,) = batch.runs
    assert other.door.logs.of(run) == own.door.logs.of(run) == folder.readable_log()
    assert other.door.logs.of_ended(run) == own.door.logs.of_ended(run) == folder.readable_log()


@on_postgresql
def test_a_long_log_is_cut_as_the_file_is_and_says_whose_file_that_was(hosts: tuple[Host, Host]) -> None:
    own, other = hosts
    batch = own.claim()
    folder, line = own.folder(batch), b'{"text": "caf\\u00e9 ' + b"x" * 80 + b'\\n"}\n'
    whole = b"the first\n" + line * (3 * readable.READABLE_LIMIT // len(line)) + b"the last\n"
    folder.stderr.write_bytes(whole)
    copy_of(own, folder).catch_up()
    assert stored(own, batch) == whole
    shown = other.door.logs.of(batch.runs[0])
    elsewhere = f"was written to stderr.txt of runs/{batch.batch_id} in the state folder of the node "
    assert f"bytes are left out here; the whole {elsewhere}{own.ledger.workers.node}]\n" in shown
    assert shown.replace(f"{elsewhere}{own.ledger.workers.node}", f"is in {folder.stderr}") == folder.readable_log()


@on_postgresql
def test_runs_of_a_batch_share_one_reading_of_its_log(hosts: tuple[Host, Host]) -> None:
    own, other = hosts
    batch = own.claim("a", "b")
    folder = own.folder(batch)
    folder.stderr.write_text("a line\n")
    copy_of(own, folder).catch_up()
    own.finish(batch)
    shown = [other.door.logs.of_ended(run) for run in batch.runs]
    assert shown == ["a line\n"] * 2
    assert shown[0] is shown[1]


@on_postgresql
def test_a_door_whose_own_folder_was_removed_shows_the_copy(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_text("a line\n")
    copy_of(own, folder).catch_up()
    folder.remove()
    assert own.door.logs.of(batch.runs[0]) == "a line\n"


def test_a_log_that_was_not_copied_is_with_its_node(hosts: tuple[Host, Host]) -> None:
    own, other = hosts
    batch = own.claim()
    own.finish(batch)
    (run,) = batch.runs
    with pytest.raises(NoLog, match=f"on another host: the node {own.ledger.workers.node} has it") as caught:
        other.door.logs.of(run)
    assert f"runs/{batch.batch_id} in its state folder" in caught.value.next_step
    assert other.door.logs.of_ended(run) is None
    with pytest.raises(NoLog, match="the log was removed"):
        own.door.logs.of(run)
    assert own.door.logs.of_ended(run) == ""


# What is copied


@on_postgresql
def test_a_stream_is_copied_as_it_grows(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    copy = copy_of(own, RunFolder(own.settings.runs_dir / batch.batch_id))
    copy.catch_up()
    assert rows(own) == 0
    folder, whole = own.folder(batch), b""
    for part in (b"a", SENTENCE.encode()[:3], SENTENCE.encode()[3:], b"", b"x" * (20 * PIECE_BYTES + 1), b"end\n"):
        whole += part
        folder.stderr.write_bytes(whole)
        copy.catch_up()
        assert stored(own, batch) == whole
    assert rows(own) == 21


@on_postgresql
def test_what_was_cut_off_is_not_kept(hosts: tuple[Host, Host]) -> None:
    own, other = hosts
    batch = own.claim()
    folder = own.folder(batch)
    copy = copy_of(own, folder)
    folder.stderr.write_bytes(b"e" * MAX_OUTPUT)
    folder.stdout.write_bytes(b"o" * MAX_OUTPUT)
    copy.catch_up()
    assert len(stored(own, batch)) + len(stored(own, batch, "stdout")) <= MAX_OUTPUT
    for size in (PIECE_BYTES + 5, 3):
        folder.stdout.write_bytes(b"o" * size)
        folder.stderr.write_bytes(b"e" * (MAX_OUTPUT - size))
        copy.catch_up()
        assert stored(own, batch, "stdout") == folder.stdout.read_bytes()
        assert stored(own, batch) == folder.stderr.read_bytes()
    folder.stderr.write_bytes(b"")
    copy.catch_up()
    assert other.door.logs.of(batch.runs[0]) == "ooo"


@on_postgresql
def test_no_part_is_larger_than_a_piece(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_bytes(b"x" * (MAX_OUTPUT - 7))
    copy_of(own, folder).catch_up()
    with own.ledger._database.read() as connection:
        largest = connection.execute(select(func.max(func.length(output_table.c.data)))).scalar_one()
    assert (rows(own), largest) == (MAX_OUTPUT // PIECE_BYTES, PIECE_BYTES)


@on_postgresql
def test_a_child_that_never_stops_printing_is_copied_up_to_where_it_was(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)

    class Chatty(OutputCopy):
        """Meanwhile the child prints on, for a while."""

        def _read(self, stream: str, start: int, end: int) -> bytes:
            data = super()._read(stream, start, end)
            if len(data) < 100:
                with open(folder.stderr, "ab") as file:
                    file.write(b"more\n")
            return data

    folder.stderr.write_bytes(b"first\n")
    Chatty(own.ledger.output, folder, MAX_OUTPUT).catch_up()
    assert stored(own, batch) == b"first\n"


@on_postgresql
def test_after_an_outage_it_goes_on_from_where_it_stopped(
    host: Callable[[str], Host], url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 2)  # a transaction may pause for so long
    monkeypatch.setattr(output_copy, "COPY_SECONDS", 0.05)
    own = host("own")
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_bytes(b"before\n")
    copy = copy_of(own, folder)
    with copy:
        until(lambda: stored(own, batch) == b"before\n")
        with locked(url):
            folder.stderr.write_bytes(b"before\nmeanwhile\n")
            until(lambda: "its output could not be copied" in caplog.text)
            with pytest.raises(LedgerUnavailable):
                copy_of(own, folder).catch_up()
            assert stored(own, batch) == b"before\n"
        until(lambda: stored(own, batch) == b"before\nmeanwhile\n")


@on_postgresql
def test_a_file_that_cannot_be_read_is_not_worth_the_batch(
    hosts: tuple[Host, Host], caplog: pytest.LogCaptureFixture
) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.mkdir()
    copy = copy_of(own, folder)
    with copy:
        pass
    copy.catch_up()
    assert caplog.text.count("its output could not be copied") == 1


@on_postgresql
def test_nothing_is_copied_of_a_batch_that_was_lost(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_bytes(b"a line\n")
    own.ledger.queue.recover([batch.batch_id])
    copy_of(own, folder).catch_up()
    assert rows(own) == 0


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_on_sqlite_nothing_is_copied(hosts: tuple[Host, Host]) -> None:
    own, _ = hosts
    batch = own.claim()
    folder = own.folder(batch)
    folder.stderr.write_bytes(b"a line\n")
    copy = copy_of(own, folder)
    with copy:
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("output-")]
    copy.catch_up()
    assert rows(own) == 0


# With the batch that it is of


class Printer(EchoRunner):
    """Prints, as a child does, before it answers."""

    def __init__(self, host: Host, text: bytes, first: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._host, self._text, self._first = host, text, first

    def generate(self, batch: Batch, listener: Listener, lock: DeviceLock, warm: WarmChild | None = None) -> Outcome:
        self._first()
        self._host.folder(batch).stderr.write_bytes(self._text)
        return super().generate(batch, listener, lock, warm)


def loop_of(host: Host, runner: EchoRunner) -> DeviceLoop:
    device = devices_of(host.settings)[0]
    return DeviceLoop(host.ledger, device, runner, host.settings, lambda: None)


def shown_at_the_end(own: Host, other: Host) -> list[str]:
    """Gets what the other door shows of each run at the moment when it has ended."""
    shown: list[str] = []
    own.ledger.queue.on_end = lambda run: shown.append(other.door.logs.of(run))
    return shown


@on_postgresql
def test_when_a_run_has_ended_every_door_has_the_whole(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_copy, "COPY_SECONDS", 600)
    own, other = hosts
    own.ledger.queue.submit([Request(prompt="Hello")])
    shown = shown_at_the_end(own, other)
    assert loop_of(own, Printer(own, b"the whole\n")).turn()
    assert shown == ["the whole\n"]


@on_postgresql
def test_a_run_does_not_end_before_its_output_could_be_copied(
    host: Callable[[str], Host], url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("demo_api.queue.database.BUSY_SECONDS", 2)  # a transaction may pause for so long
    own, other = host("own"), host("other")
    (run,) = own.ledger.queue.submit([Request(prompt="Hello")])
    shown = shown_at_the_end(own, other)
    with ExitStack() as outage:
        printer = Printer(own, b"the whole\n", lambda: outage.enter_context(locked(url)))
        turn = threading.Thread(target=loop_of(own, printer).turn, daemon=True)
        turn.start()
        until(lambda: "its output could not be copied" in caplog.text)
        assert other.ledger.history.get(run.run_id).status == "running"
    join(turn)
    assert shown == ["the whole\n"]
    assert other.ledger.history.get(run.run_id).status == "succeeded"


@on_postgresql
def test_the_lease_is_renewed_while_the_end_is_copied(
    host: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = host("own")
    (run,) = own.ledger.queue.submit([Request(prompt="Hello")])
    write, leases = own.ledger.output.write, []

    def write_slowly(batch_id: str, parts: Mapping[str, tuple[int, bytes]]) -> bool:
        before = lease(own, batch_id)
        until(lambda: lease(own, batch_id) > before)
        leases.append(lease(own, batch_id))
        return write(batch_id, parts)

    monkeypatch.setattr(own.ledger.output, "write", write_slowly)
    assert loop_of(own, Printer(own, b"the whole\n")).turn()
    assert leases
    assert own.ledger.history.get(run.run_id).status == "succeeded"


def lease(host: Host, batch_id: str) -> float:
    with host.ledger._database.read() as connection:
        wanted = select(batch_table.c.lease_until).where(batch_table.c.batch_id == batch_id)
        until: float = connection.execute(wanted).scalar_one()
    return until


def test_a_child_that_prints_too_much_is_cut_for_all_doors(lab: Lab, tmp_path: Path) -> None:
    door = lab.door()
    lab.worker(max_output=2**18, demo_home=make_home(tmp_path / "floods", "floods_stderr"))
    until(lambda: door.get("/readyz").status_code == 200)
    run = door.ending(door.submit("Hello"))
    assert run["code"] == "output_too_large"
    (folder,) = [RunFolder(path) for path in lab.site.folder.glob("state */runs/*")]
    assert folder.stdout.stat().st_size + folder.stderr.stat().st_size == 2**18
    assert door.get(f"/runs/{run['run_id']}/log").text == folder.readable_log()


def test_each_batch_of_a_child_that_keeps_its_model_has_its_own_log(lab: Lab) -> None:
    door = lab.door()
    lab.worker(warm="model")
    until(lambda: door.get("/readyz").status_code == 200)
    answers = [door.chat(prompt).json() for prompt in ("one", "two", "three")]
    assert answers[-1]["timing"]["warm"] == "model"
    files = [RunFolder(path).readable_log() for path in lab.site.folder.glob("state */runs/*")]
    for answer in answers:
        assert [log for log in files if f"ok: {answer['prompt']}" in log] == [answer["output"]]
        assert door.get(f"/runs/{answer['run_id']}/log").text == answer["output"]


# When it goes


@on_postgresql
def test_the_output_goes_with_its_run_and_so_does_that_of_an_earlier_attempt(hosts: tuple[Host, Host]) -> None:
    own, other = hosts
    ended: list[Batch] = []
    for prompt in ("old", "new"):
        lost = own.claim(prompt)
        copy = copy_of(own, own.folder(lost))
        RunFolder(own.settings.runs_dir / lost.batch_id).stderr.write_bytes(b"the first attempt\n")
        copy.catch_up()
        own.ledger.queue.requeue(lost.batch_id)
        again = own.ledger.queue.claim("device", list)
        assert again is not None
        folder = own.folder(again)
        folder.stderr.write_bytes(b"a line\n")
        copy_of(own, folder).catch_up()
        own.finish(again)
        ended.append(again)
    running = own.claim("running")
    folder = own.folder(running)
    folder.stderr.write_bytes(b"it runs\n")
    copy_of(own, folder).catch_up()
    assert rows(own) == 5
    with own.ledger._database.write() as connection:
        old = update(run_table).where(run_table.c.finished_at.is_not(None))
        connection.execute(old.values(finished_at=time.time() - 1000))
    other.ledger.history.prune()
    old_batch, new_batch = ended
    assert stored(own, old_batch) == b""
    assert (stored(own, new_batch), stored(own, running)) == (b"a line\n", b"it runs\n")
    assert rows(own) == 2
