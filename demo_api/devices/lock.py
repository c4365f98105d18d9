"""A device and its locks: at most one process tree has it, whichever server started that."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType

from demo_api.config import Settings
from demo_api.demo.run_folder import set_aside
from demo_api.errors import SetupError

_RETRY_SECONDS = 0.1


class DeviceBusy(Exception):
    """Another process had the device for as long as the caller was ready to wait."""


class DeviceLock:
    """One process's share of a device; released at the end of a ``with`` block.

    The lock is an ``flock`` on an open file: it is free only when every process that inherited the descriptor is gone.
    So the device stays taken while the child lives, even when the server was killed.

    Attributes:
        fd: the descriptor that the child inherits; None when the child alone has it.
        others_serve: whether another server that is alive has not finished its batch on this device. Its child is
            gone, but it may still be cleaning up, or be suspended: the ledger's lease decides.
    """

    def __init__(self, fd: int | None, server_fd: int, *, others_serve: bool, keeps_share: bool) -> None:
        self.fd = fd
        self.others_serve = others_serve
        self._server_fd: int | None = server_fd
        self._to_the_end = keeps_share

    def hand_to_child(self) -> None:
        """Releases the lock to the child that has inherited it, unless ``keeps_share``.

        So a suspended server does not keep a device that nobody uses. The server's lock, and the ledger, which knows
        the batch, keep other servers away until this one has cleaned up.
        """
        if not self._to_the_end:
            self._release()

    def _release(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __enter__(self) -> DeviceLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()
        if self._server_fd is not None:
            os.close(self._server_fd)
            self._server_fd = None


@dataclass(frozen=True)
class Device:
    """A device of this host.

    Attributes:
        name: its name in the ledger, and of its lock files.
        folder: where the lock files are. Servers that share a device must share this folder.
        environment: what selects it, such as ``TT_VISIBLE_DEVICES``.
    """

    name: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Unique among all devices of all state folders on this host."""
        return str(self.folder / self.name)

    @property
    def _lock(self) -> Path:
        return self.folder / f"{self.name}.lock"

    @property
    def _server_lock(self) -> Path:
        return self.folder / f"{self.name}.server.lock"

    @property
    def _waiting(self) -> Path:
        return self.folder / f"{self.name}.waiting"

    def try_lock(self, *, keeps_share: bool = False) -> DeviceLock | None:
        """Takes the device if no child has it.

        Args:
            keeps_share: keep it after ``hand_to_child`` too, for a caller whose batch no ledger knows.

        Raises:
            OSError: the lock files cannot be made.
        """
        fd = _locked(self._lock)
        if fd is None:
            return None
        try:
            others_serve = self.has_server()
            return DeviceLock(fd, _shared(self._server_lock), others_serve=others_serve, keeps_share=keeps_share)
        except BaseException:
            os.close(fd)
            raise

    def share(self) -> DeviceLock:
        """A share for a server whose own child has the device already: other servers then know that it is served.

        Raises:
            OSError: the lock file cannot be made.
        """
        others_serve = self.has_server()
        return DeviceLock(None, _shared(self._server_lock), others_serve=others_serve, keeps_share=False)

    def note_waiting(self, batch_id: str) -> None:
        """Records that the child with this mark has the device and waits for a batch. The caller must have the lock.

        Raises:
            OSError: the file cannot be written.
        """
        new = self._waiting.with_suffix(".new")
        if new.is_dir():
            set_aside(new)
        new.write_text(batch_id, encoding="ascii")
        new.replace(self._waiting)  # it is there whole or not at all

    def waiting(self) -> str | None:
        """The mark of the child that has the device and waits for a batch; None where none does."""
        try:
            return self._waiting.read_text(encoding="ascii", errors="replace")  # what is no mark is nobody's
        except OSError:
            return None

    def take_waiting(self) -> bool:
        """Reserves the child that waits, to use it or to end it. Of all who try, one succeeds."""
        try:
            self._waiting.unlink()
        except FileNotFoundError:
            return False
        except OSError:  # a folder, for instance
            set_aside(self._waiting)
            return False
        return True

    def wait_for_lock(
        self, *, seconds: float, given_up: Event, make_way: Callable[[], object] = lambda: None
    ) -> DeviceLock:
        """Takes the device when nobody has it any more, and keeps it after ``hand_to_child``.

        Args:
            given_up: set from another thread, ends the wait.
            make_way: called before every attempt.

        Raises:
            DeviceBusy: it was not free in time, or the wait was given up.
        """
        deadline = time.monotonic() + seconds
        while True:  # flock has no timeout, so it is tried again and again: mostly the first attempt succeeds
            make_way()
            lock = self.try_lock(keeps_share=True)
            if lock is not None and not lock.others_serve:
                return lock
            if lock is not None:
                lock.__exit__(None, None, None)
            if time.monotonic() >= deadline or given_up.wait(_RETRY_SECONDS):
                raise DeviceBusy

    def has_child(self) -> bool:
        """Whether some process has inherited the device, or is about to give it to a child."""
        return _is_locked(self._lock)

    def has_server(self) -> bool:
        """Whether a process that is alive serves the device now."""
        return _is_locked(self._server_lock)


def devices_of(settings: Settings) -> list[Device]:
    """The devices of this host, as the settings name them.

    Raises:
        SetupError: it has none.
    """
    if not settings.devices:
        raise SetupError("This host has no devices.", next_step="Leave DEMO_API_DEVICES (--devices) out, or name some.")
    return [Device(each.name, settings.state_dir, each.environment) for each in settings.devices]


def _locked(path: Path) -> int | None:
    """A new descriptor that has the lock; None when another process has it."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _shared(path: Path) -> int:
    """A new descriptor that shares the lock: several servers are there when one of them was suspended."""
    fd = _open(path)
    fcntl.flock(fd, fcntl.LOCK_SH)  # does not block: nobody has it alone for longer than a check takes
    return fd


def _open(path: Path) -> int:
    if path.is_dir():
        set_aside(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # nobody has made it yet, or nobody could
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
