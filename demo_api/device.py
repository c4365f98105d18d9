"""The device's lock: at most one child holds the device, whoever started it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

_LOOK_AGAIN_SECONDS = 0.1


class DeviceBusy(Exception):
    """Somebody else held the device for all of the time that we were ready to wait."""


@contextmanager
def held(path: Path, *, wait_seconds: float, given_up: Event) -> Iterator[int]:
    """Holds the device, and yields the file descriptor that the child must inherit.

    The lock is an ``flock`` on an open file: it is free only when every process that inherited the descriptor is gone.
    So the device stays taken while the child lives, even when the server was killed.

    Args:
        path: the lock file, created when missing.
        wait_seconds: how long to wait for another holder.
        given_up: set from another thread, ends the wait.

    Raises:
        DeviceBusy: it was not free in time, or the wait was given up.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    try:
        while not _locked(fd):  # flock has no timeout, so look again and again: the usual case is one look
            if time.monotonic() >= deadline or given_up.wait(_LOOK_AGAIN_SECONDS):
                raise DeviceBusy
        yield fd
    finally:
        os.close(fd)


def is_taken(path: Path) -> bool:
    """Whether somebody holds the device now."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # nobody has made it yet, or nobody could
        return False
    try:
        return not _locked(fd)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
