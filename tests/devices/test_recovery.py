"""The user's reset command, run for real."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.waiting import join, until

from demo_api.config import Settings
from demo_api.devices.lock import Device, devices_of
from demo_api.devices.recovery import DeviceRecovery
from demo_api.devices.reset import MARK, Reset, holders
from demo_api.errors import BadRequest
from demo_api.process.tree import survivors
from demo_api.queue import DeviceStates, Ledger

HERE = f"reset of {os.getpid()}"


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def reset(*commands: str, timeout_s: float = 30, lock: int | None = None) -> Reset:
    return Reset(commands, mark=HERE, timeout_s=timeout_s, environment=dict(os.environ), lock=lock)


def test_a_reset_runs_its_commands_one_after_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append = f"import sys; open({str(log)!r}, 'a').write(sys.argv[1])"
    assert reset(f"{python(append)} 'reset it; '", f"{python(append)} check").run() is None
    assert log.read_text() == "reset it; check"


HANGS = python("import signal; print(flush=True); signal.pause()")
PROBLEMS = {
    "it fails": (python("print('no chip'); raise SystemExit(3)"), "ended with exit code 3: no chip"),
    "it fails in silence": (python("raise SystemExit(3)"), "ended with exit code 3: it said nothing"),
    "it is killed": (python("import os; os.kill(os.getpid(), 9)"), "ended with exit code -9"),
    "it is not there": ("no-such-program -r", "`no-such-program -r` could not be run: No such file or directory."),
    "it says what a terminal would obey": (python("print('\\x1b[2J'); raise SystemExit(1)"), "exit code 1: ?[2J"),
    "it floods": (python("while True: print('x' * 9999)"), "was stopped: output too large."),
}


@pytest.mark.parametrize(("command", "told"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_went_wrong_is_one_sentence_and_the_check_is_not_run(command: str, told: str, tmp_path: Path) -> None:
    problem = reset(command, f"touch {tmp_path}/checked").run()
    assert problem is not None
    assert told in problem
    assert "\n" not in problem
    assert not (tmp_path / "checked").exists()


def test_a_reset_and_its_check_have_their_time_together() -> None:
    told = reset(python("0"), HANGS, timeout_s=1).run()
    assert told is not None
    assert told.endswith("was stopped: reset and check took longer than 1 s.")
    assert survivors(MARK, {HERE}) == []


def test_a_reset_can_be_broken_off() -> None:
    hanging = reset(HANGS)
    problems: list[str | None] = []
    thread = threading.Thread(target=lambda: problems.append(hanging.run()))
    thread.start()
    until(lambda: survivors(MARK, {HERE}))
    hanging.stop()
    join(thread)
    assert "was stopped" in (problems[0] or "")
    assert survivors(MARK, {HERE}) == []


def test_a_reset_that_is_broken_off_before_it_begins_starts_nothing(tmp_path: Path) -> None:
    stopped = reset(f"touch {tmp_path}/started")
    stopped.stop()
    assert "was not started" in (stopped.run() or "")
    assert not (tmp_path / "started").exists()


def test_who_uses_the_device_is_found_by_its_open_file(tmp_path: Path) -> None:
    assert holders(tmp_path) == []
    with (tmp_path / "0").open("w") as opened:
        user = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(opened.fileno(),),
        )
        assert user.stdout is not None
        user.stdout.readline()
        (found,) = holders(tmp_path)
        assert found.startswith(f"{user.pid} (python")
        user.communicate(b"\n")
    assert holders(tmp_path) == []


@pytest.fixture
def states(settings: Callable[..., Settings]) -> DeviceStates:
    return Ledger(settings()).devices


def recovery_of(states: DeviceStates, settings: Settings) -> tuple[DeviceRecovery, Device]:
    return DeviceRecovery(states, devices_of(settings)[0], settings), devices_of(settings)[0]


def test_the_command_is_told_which_device_and_no_secrets_and_holds_the_lock(
    states: DeviceStates, settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_API_DATABASE_URL", f"sqlite:///{tmp_path}/ledger.db")
    code = f"import os; open({str(tmp_path / 'environ')!r}, 'w').write(repr(sorted(os.environ)))"
    chosen = settings(devices="device TT_VISIBLE_DEVICES=0", reset_command=python(code))
    recovery, device = recovery_of(states, chosen)
    with device.try_lock() as hold:  # type: ignore[union-attr]
        recovery.reset(hold)
    told = (tmp_path / "environ").read_text()
    assert "TT_VISIBLE_DEVICES" in told
    assert "DEMO_API_DATABASE_URL" not in told
    assert states.get("device").state == "free"


def test_a_device_stays_taken_while_the_reset_of_a_killed_server_goes_on_and_that_is_ended(
    states: DeviceStates, settings: Callable[..., Settings]
) -> None:
    recovery, device = recovery_of(states, settings(reset_command=HANGS))
    hold = device.try_lock()
    assert hold is not None
    assert hold.fd is not None
    orphan = subprocess.Popen(
        shlex.split(HANGS), env={**os.environ, MARK: device.mark}, pass_fds=(hold.fd,), stdout=subprocess.PIPE
    )
    assert orphan.stdout is not None
    orphan.stdout.readline()
    hold.__exit__(None, None, None)
    assert device.has_child()
    recovery.end_lost_reset()
    assert orphan.poll() is None  # it is not ours to end while nobody resets the device
    states.set("device", "resetting", "It is being reset.")
    recovery.end_lost_reset()
    orphan.communicate(timeout=60)
    assert not device.has_child()


def test_a_device_that_somebody_uses_is_not_reset(
    states: DeviceStates, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_the_way = ["1234 (tt-smi)"]
    monkeypatch.setattr("demo_api.devices.reset.holders", lambda: in_the_way)
    recovery, device = recovery_of(states, settings(reset_command=f"touch {tmp_path}/reset"))
    states.set("device", "suspect", "A child was killed.")
    with device.try_lock() as hold:  # type: ignore[union-attr]
        assert not recovery.prepare(hold)
        assert not (tmp_path / "reset").exists()
        assert states.get("device").state == "suspect"
        in_the_way.clear()
        assert recovery.prepare(hold)
    assert (tmp_path / "reset").exists()


def test_a_reset_that_a_stopping_server_breaks_off_leaves_the_doubt_and_is_done_again(
    states: DeviceStates, settings: Callable[..., Settings]
) -> None:
    recovery, device = recovery_of(states, settings(reset_command=HANGS))
    states.set("device", "suspect", "A child was killed.")
    with device.try_lock() as hold:  # type: ignore[union-attr]
        resetting = threading.Thread(target=recovery.reset, args=(hold,))
        resetting.start()
        until(lambda: survivors(MARK, {device.mark}))
        recovery.stop()
        resetting.join(10)
        assert states.get("device").state == "suspect"
        next_server, _ = recovery_of(states, settings(reset_command=python("0")))
        assert next_server.prepare(hold)
    assert states.get("device").state == "free"


@pytest.mark.parametrize("command", ["", "  ", "tt-smi 'r"])
def test_a_command_that_is_none_is_refused_at_the_start(settings: Callable[..., Settings], command: str) -> None:
    with pytest.raises(BadRequest, match="DEMO_API_RESET_COMMAND"):
        settings(reset_command=command)
