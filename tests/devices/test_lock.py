from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Timer

import pytest
from support.waiting import join

from demo_api.config import Settings
from demo_api.devices.lock import Device, DeviceBusy, DeviceLock, devices_of

_HOLDER = "import sys; print('locked', flush=True); sys.stdin.read()"
NEVER = Event()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device("device", tmp_path)


def hold(device: Device, seconds: float = 0, given_up: Event = NEVER) -> DeviceLock:
    return device.wait_for_lock(seconds=seconds, given_up=given_up)


def heir_of(holding: DeviceLock) -> subprocess.Popen[bytes]:
    """A child that has inherited the lock."""
    assert holding.fd is not None
    heir = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], pass_fds=(holding.fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert heir.stdout is not None
    assert heir.stdout.readline() == b"locked\n"
    return heir


def test_two_cannot_hold_it(device: Device) -> None:
    with hold(device):
        assert device.try_lock() is None
        with pytest.raises(DeviceBusy):
            hold(device, seconds=0.2)
    with hold(device):
        pass


def test_it_stays_taken_while_a_process_that_inherited_it_lives(device: Device) -> None:
    with hold(device) as holding:
        heir = heir_of(holding)
    assert device.has_child()
    with pytest.raises(DeviceBusy):
        hold(device)
    heir.communicate(timeout=60)
    assert not device.has_child()
    with hold(device):
        pass


def test_who_left_it_to_a_child_still_serves_it_when_the_child_is_gone(device: Device) -> None:
    with device.try_lock() as holding:
        heir = heir_of(holding)
        holding.hand_to_child()
        assert device.try_lock() is None
        heir.communicate(timeout=60)
        assert device.has_server()
        second = device.try_lock()
        assert second is not None
        with second:
            assert second.others_serve
        with pytest.raises(DeviceBusy):
            hold(device)
    assert not device.has_server()
    with hold(device) as holding:
        assert not holding.others_serve


def test_who_took_over_from_one_that_was_suspended_is_seen_when_that_one_leaves(device: Device) -> None:
    suspended = device.try_lock()
    assert suspended is not None
    suspended.hand_to_child()
    with device.try_lock() as second:
        assert second.others_serve
        suspended.__exit__(None, None, None)
        assert device.has_server()


def test_the_device_is_given_back_when_the_servers_lock_cannot_be_made(device: Device) -> None:
    in_the_way = device.folder / "device.server.lock"
    in_the_way.symlink_to(device.folder / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError):
        device.try_lock()
    in_the_way.unlink()
    with hold(device):
        pass


def test_the_wait_ends_when_the_holder_leaves(device: Device) -> None:
    leaver = Timer(0.3, hold(device).__exit__, (None, None, None))
    leaver.start()
    with hold(device, seconds=30):
        pass
    join(leaver)


def test_the_wait_can_be_given_up(device: Device) -> None:
    given_up = Event()
    with hold(device):
        Timer(0.2, given_up.set).start()
        with pytest.raises(DeviceBusy):
            hold(device, seconds=3600, given_up=given_up)


def test_no_descriptor_is_left_open(device: Device) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        with hold(device) as holding:
            holding.hand_to_child()
            assert device.try_lock() is None  # this one is to the end
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_a_hold_to_the_end_is_not_left_to_the_child(device: Device) -> None:
    with hold(device) as holding:
        holding.hand_to_child()
        assert device.try_lock() is None


def test_two_devices_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    text = "one TT_VISIBLE_DEVICES=0; other TT_VISIBLE_DEVICES=1 'A=b c'"
    one, other = devices_of(Settings.load({"state_dir": tmp_path, "devices": text}))
    assert (one.environment, other.environment) == (
        {"TT_VISIBLE_DEVICES": "0"},
        {"TT_VISIBLE_DEVICES": "1", "A": "b c"},
    )
    with hold(one), hold(other):
        pass
