"""Finds and ends every descendant of a child, also those that left its session or lost their parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

import psutil


class ProcessTree:
    """The descendants of one unreaped process.

    PR_SET_CHILD_SUBREAPER would hand every orphan to this process. But it holds for the whole server, which would then
    have to reap children that it never made, and it ends with the server; the mark outlives it.

    Args:
        leader_pid: the process whose descendants these are.
        mark: an environment variable and its value, which descendants inherit and nobody else has.
    """

    def __init__(self, leader_pid: int, mark: tuple[str, str]) -> None:
        self._leader = psutil.Process(leader_pid)
        self._mark = mark
        self._seen: set[psutil.Process] = set()  # psutil tells two owners of one pid apart by their time of creation

    def snapshot(self) -> None:
        """Remembers the descendants of this moment, for those that leave the session and clear their environment."""
        with suppress(psutil.Error):
            self._seen = {process for process in self._seen if _runs(process)}
            self._seen.update(self._leader.children(recursive=True))

    def leader_is_suspended(self) -> bool:
        """Whether the leader is stopped by a signal."""
        with suppress(psutil.Error):
            return self._leader.status() == psutil.STATUS_STOPPED
        return False

    def living(self) -> set[psutil.Process]:
        """Those that live now, without the leader."""
        self.snapshot()
        self._seen.update(process for process in _own_processes() if self._is_member(process))
        for process in tuple(self._seen):
            with suppress(psutil.Error):
                self._seen.update(process.children(recursive=True))
        self._seen = {process for process in self._seen if _runs(process)}
        return set(self._seen)

    def is_gone(self) -> bool:
        """Whether none lives any more."""
        before = set(psutil.pids())
        # A process can fork and leave while the others are being looked at: then there is a new one.
        return not self.living() and (set(psutil.pids()) <= before or not self.living())

    def _is_member(self, process: psutil.Process) -> bool:
        if process == self._leader:
            return False  # it is follow()'s to wait for and to reap
        # No other session can have the leader's number while the leader is unreaped.
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == self._leader.pid:
                return True
        return _value(process, self._mark[0]) == self._mark[1]


def survivors(variable: str, values: Collection[str]) -> list[psutil.Process]:
    """Every living process of this user, but this one, in whose environment the variable has one of these values."""
    if not values:
        return []
    return [process for process in _own_processes() if _value(process, variable) in values]  # a zombie has none


def end(processes: list[psutil.Process], *, grace: float) -> bool:
    """Ends them: SIGINT, the grace, in which a child closes its device, SIGTERM, a short one, SIGKILL.

    Args:
        grace: seconds.

    Returns:
        whether all left at SIGINT.
    """
    left = processes
    for number, seconds in ((signal.SIGINT, grace), (signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0)):
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
        left = _left_after(left, seconds)
        if not left:
            return number == signal.SIGINT
    return False


def _left_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        pause.wait(0.02)
    return left


def _own_processes() -> Iterator[psutil.Process]:
    # Not process_iter(): it hands out objects that it remembers, which may stand for a pid's former owner.
    for pid in psutil.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if pid != os.getpid() and process.uids().real == os.getuid():
                yield process


def _value(process: psutil.Process, variable: str) -> str | None:
    with suppress(psutil.Error, OSError):  # gone, a zombie, or not ours to read
        return process.environ().get(variable)
    return None


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.is_running()
        if process.ppid() == os.getpid():  # this process is init, as in a container, and an orphan is its to reap
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return False
