"""Files, folders and rows that a disk or a hand has damaged: none of them stops the queue, or what comes after."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import requests
from support.echo_runner import EchoRunner
from support.serving import Server
from support.sse import events
from support.waiting import until

from demo_api.config import Settings
from demo_api.demo.warm_child import WarmChild
from demo_api.messages import Request, Run
from demo_api.queue import Database, Ledger

Serve = Callable[..., Server]
MakeSettings = Callable[..., Settings]

BATCH = "20261126-130810-a8d55a49"
NESTED = "[" * 100_000

# What may stand in the place of an object in JSON.
VALUES = {
    "empty": "",
    "cut": '{"prompt": "Hel',
    "no UTF-8": b'{"prompt": "\xff"}',
    "null": "null",
    "a list": "[]",
    "too deep": NESTED,
    "no field": "{}",
}


def change(ledger: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(ledger)) as connection, connection:
        assert connection.execute(statement, values).rowcount


def ledger_of(settings: Settings) -> Path:
    return settings.state_dir / "ledger.db"


def submitted(settings: Settings, *prompts: str) -> list[Run]:
    """Runs that an earlier server has accepted and not begun."""
    with closing(Ledger(settings)) as ledger:
        return ledger.queue.submit([Request(prompt=prompt) for prompt in prompts])


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_waiting_run_with_a_damaged_row_fails_and_those_behind_it_are_run(
    serve: Serve, settings: MakeSettings, caplog: pytest.LogCaptureFixture, value: str | bytes
) -> None:
    damaged, sound = submitted(settings(), "damaged", "sound")
    change(ledger_of(settings()), "UPDATE runs SET request = ? WHERE run_id = ?", value, damaged.run_id)
    with caplog.at_level(logging.ERROR):
        server = serve(settings(), EchoRunner())
        until(lambda: server.get(f"/runs/{sound.run_id}").json()["status"] == "succeeded")
    failed = server.get(f"/runs/{damaged.run_id}").json()
    assert (failed["status"], failed["code"], failed["position"]) == ("failed", "damaged", None)
    assert failed["prompt"] in ("damaged", None)
    assert [record["run_id"] for record in server.get("/runs").json()["runs"]] == [sound.run_id, damaged.run_id]
    assert list(events(f"{server.url}/runs/{damaged.run_id}/events"))[-1][1] == "done"
    assert server.get("/readyz").status_code == 200
    assert caplog.text.count("is damaged") == 1


def test_a_request_that_no_longer_passes_the_checks_fails_with_the_field_s_name(
    serve: Serve, settings: MakeSettings
) -> None:
    (run,) = submitted(settings(), "Hello")
    request = json.dumps({"prompt": "Hello", "max_tokens": -1})
    change(ledger_of(settings()), "UPDATE runs SET request = ?", request)
    server = serve(settings(), EchoRunner())
    until(lambda: server.get(f"/runs/{run.run_id}").json()["status"] == "failed")
    failed = server.get(f"/runs/{run.run_id}").json()
    assert (failed["prompt"], failed["max_tokens"]) == ("Hello", None)
    assert "max_tokens: " in failed["error"]


@pytest.mark.parametrize("value", [None, *VALUES.values()], ids=["no value", *VALUES])
def test_an_ended_run_with_a_damaged_result_is_shown_as_such_and_hides_no_other(
    serve: Serve, settings: MakeSettings, value: str | bytes | None
) -> None:
    server = serve(settings(), EchoRunner())
    run_id = server.chat("damaged").json()["run_id"]
    server.chat("sound")
    change(ledger_of(server.settings), "UPDATE runs SET result = ? WHERE run_id = ?", value, run_id)
    sound, damaged = server.get("/runs").json()["runs"]
    assert (sound["status"], sound["response"]) == ("succeeded", "sound")
    assert (damaged["status"], damaged["code"], damaged["prompt"]) == ("failed", "damaged", "damaged")
    assert list(events(f"{server.url}/runs/{run_id}/events"))[-1][2]["code"] == "damaged"


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_damaged_event_is_left_out(serve: Serve, settings: MakeSettings, value: str | bytes) -> None:
    server = serve(settings(), EchoRunner())
    run_id = server.chat("Hello").json()["run_id"]
    change(ledger_of(server.settings), "UPDATE events SET data = ?", value)
    assert list(events(f"{server.url}/runs/{run_id}/events"))[-1][2]["response"] == "Hello"


def test_a_device_whose_state_is_not_known_is_suspect(serve: Serve, settings: MakeSettings) -> None:
    server = serve(settings(), EchoRunner())
    server.chat("Hello")
    change(ledger_of(server.settings), "INSERT INTO devices (name, state, since) VALUES ('device', 'odd', 0)")
    until(lambda: server.get("/health").json()["device"]["state"] == "suspect")  # until then it may be busy
    assert server.chat("Hello").json()["response"] == "Hello"


def _config(content: bytes) -> Callable[[Path], None]:
    def damage(state: Path) -> None:
        folder = state / "runs" / BATCH
        folder.mkdir(parents=True)
        (folder / "child.json").write_bytes(content)
        (folder / "prompts.json").write_text("[]")

    return damage


def _config_is_a_folder(state: Path) -> None:
    (state / "runs" / BATCH / "child.json").mkdir(parents=True)


def _run_folder_is_a_file(state: Path) -> None:
    (state / "runs").mkdir()
    (state / "runs" / BATCH).touch()


def _run_folder_is_a_link(state: Path) -> None:
    _run_folder_is_a_file(state)
    (state / "runs" / BATCH).unlink()
    (state / "runs" / BATCH).symlink_to(state)


def _runs_is_a_file(state: Path) -> None:
    (state / "runs").touch()


def _is_a_folder(name: str) -> Callable[[Path], None]:
    return lambda state: (state / name / "in it").mkdir(parents=True)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "child.json is empty": _config(b""),
    "child.json is cut": _config(b'{"device": "dev'),
    "child.json is a list": _config(b"[]"),
    "child.json is no UTF-8": _config(b"\xff\xfe{}"),
    "child.json is nested too deep": _config(NESTED.encode()),
    "child.json is a folder": _config_is_a_folder,
    "the run's folder is a file": _run_folder_is_a_file,
    "the run's folder is a link": _run_folder_is_a_link,
    "the folder of runs is a file": _runs_is_a_file,
    "the lock is a folder": _is_a_folder("device.lock"),
    "the server's lock is a folder": _is_a_folder("device.server.lock"),
    "the note of the child that waits is a folder": _is_a_folder("device.waiting"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_of_ours_is_reported_once_and_stops_nothing(
    serve: Serve, settings: MakeSettings, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    settings().state_dir.mkdir(parents=True, exist_ok=True)
    damage(settings().state_dir)
    with caplog.at_level(logging.ERROR):
        server = serve(settings(), EchoRunner())
        assert [server.chat(prompt).json()["response"] for prompt in ("Hello", "again")] == ["Hello", "again"]
    assert server.get("/readyz").status_code == 200
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert said
    assert len(set(said)) == len(said)
    assert "Traceback" not in caplog.text


class Broken(EchoRunner):
    """A runner whose device's loop fails at every turn, until it is mended."""

    is_broken = True

    def choose(self, runs: Sequence[Run], warm: WarmChild | None = None) -> list[Run]:
        if self.is_broken:
            raise RuntimeError("the state folder is bewitched")
        return super().choose(runs)


def test_a_loop_that_cannot_work_makes_the_server_unready_until_it_can(
    serve: Serve, settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Broken()
    server = serve(settings(), runner)
    accepted = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()
    until(lambda: server.get("/readyz").status_code == 503)
    refused = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "device_unavailable")
    health = server.get("/health").json()
    assert health["status"] == "unhealthy"
    assert "the state folder is bewitched" in health["note"]
    assert caplog.text.count("Traceback") == 1
    runner.is_broken = False
    until(lambda: server.get("/readyz").status_code == 200)
    until(lambda: server.get(f"/runs/{accepted['run_id']}").json()["status"] == "succeeded")


def test_a_ledger_that_was_removed_accepts_nothing_until_it_is_back(
    serve: Serve, settings: MakeSettings, tmp_path: Path
) -> None:
    server = serve(settings(), EchoRunner())
    run_id = server.chat("Hello").json()["run_id"]
    state, elsewhere = server.settings.state_dir, tmp_path / "elsewhere"
    state.rename(elsewhere)
    refused = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "ledger_unavailable")
    assert "was removed or replaced" in refused.json()["error"]
    assert server.get("/readyz").status_code == 503
    assert server.get("/health").json()["status"] == "unhealthy"
    if state.exists():
        shutil.rmtree(state)
    elsewhere.rename(state)
    assert server.get(f"/runs/{run_id}").json()["response"] == "Hello"
    assert server.chat("again").json()["response"] == "again"


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_a_ledger_without_a_table_is_reported_as_damaged(
    serve: Serve, settings: MakeSettings, url: str, database: Database
) -> None:
    settings().state_dir.mkdir(exist_ok=True)
    server = serve(settings(database_url=url), EchoRunner())
    server.chat("Hello")
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE events")
    refused = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60)
    assert refused.status_code == 503
    assert "The ledger is damaged" in refused.json()["error"]
    assert "restore" in refused.json()["next_step"]
