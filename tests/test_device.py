from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Timer

import pytest

from demo_api import device

_HOLDER = (
    "import fcntl, os, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
)


def test_two_cannot_hold_it(tmp_path: Path) -> None:
    lock = tmp_path / "device.lock"
    with device.held(lock, wait_seconds=0, given_up=Event()):
        second = device.held(lock, wait_seconds=0.2, given_up=Event())
        with pytest.raises(device.DeviceBusy):
            second.__enter__()
    with device.held(lock, wait_seconds=0, given_up=Event()):
        pass


def test_it_stays_taken_while_a_process_that_inherited_it_lives(tmp_path: Path) -> None:
    lock = tmp_path / "device.lock"
    with device.held(lock, wait_seconds=0, given_up=Event()) as fd:
        heir = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(fd)], pass_fds=(fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert heir.stdout is not None
        assert heir.stdout.readline() == b"held\n"
    with pytest.raises(device.DeviceBusy), device.held(lock, wait_seconds=0, given_up=Event()):
        pass
    heir.communicate()
    with device.held(lock, wait_seconds=0, given_up=Event()):
        pass


def test_the_wait_ends_when_the_holder_leaves(tmp_path: Path) -> None:
    lock = tmp_path / "device.lock"
    first = device.held(lock, wait_seconds=0, given_up=Event())
    first.__enter__()
    leaver = Timer(0.3, first.__exit__, (None, None, None))
    leaver.start()
    with device.held(lock, wait_seconds=30, given_up=Event()):
        pass
    leaver.join()


def test_the_wait_can_be_given_up(tmp_path: Path) -> None:
    lock, given_up = tmp_path / "device.lock", Event()
    with device.held(lock, wait_seconds=0, given_up=Event()):
        Timer(0.2, given_up.set).start()
        with pytest.raises(device.DeviceBusy), device.held(lock, wait_seconds=3600, given_up=given_up):
            pass


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        with device.held(tmp_path / "device.lock", wait_seconds=0, given_up=Event()):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
