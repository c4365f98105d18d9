"""Runs the user's reset command, and finds the processes that use a device."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from demo_api.process.child import Child, Ended
from demo_api.process.output import last_line
from demo_api.process.stopping import CurrentChild, Stopped

MARK = "DEMO_API_RESET"
"""The environment variable that marks the processes of a reset with ``Device.mark``."""

_GRACE_S = 5.0
_MOST_OUTPUT = 2**20
_MOST_SHOWN = 200  # characters


class Reset:
    """The command that resets a device, and then the one that checks it: ``tt-smi -r`` can exit 0 on failure.

    Args:
        commands: what is run, one after another; a shell's quoting, no shell.
        mark: what marks the processes.
        timeout_s: for all of them together.
        environment: the whole environment.
        lock: a file descriptor that they inherit, so that the device stays taken even when the server is killed.
    """

    def __init__(
        self,
        commands: Sequence[str],
        *,
        mark: str,
        timeout_s: float,
        environment: Mapping[str, str],
        lock: int | None = None,
    ) -> None:
        self._commands = commands
        self._mark = mark
        self._timeout_s = timeout_s
        self._environment = environment
        self._lock_fds = () if lock is None else (lock,)
        self._current = CurrentChild()

    def run(self) -> str | None:
        """Runs the commands, up to the first that fails.

        Returns:
            a sentence that says what went wrong; None if nothing did.
        """
        deadline = time.monotonic() + self._timeout_s
        with tempfile.TemporaryDirectory(prefix="demo-api-reset-") as folder:
            for number, command in enumerate(self._commands):
                problem = self._run(command, Path(folder) / str(number), deadline)
                if problem is not None:
                    return problem
        return None

    def stop(self) -> None:
        """Stops the command that runs. Returns at once, from any thread."""
        self._current.stop()

    def _run(self, command: str, folder: Path, deadline: float) -> str | None:
        folder.mkdir()
        said: list[bytes] = []
        try:
            child = self._current.spawn(partial(self._spawn, command, folder))
            ended = child.follow(
                timeout_s=deadline - time.monotonic(),
                max_output=_MOST_OUTPUT,
                on_output=lambda _, chunk: said.append(chunk),
            )
        except OSError as error:
            return f"`{command}` could not be run: {error.strerror}."
        except Stopped:
            return f"`{command}` was not started: the reset was interrupted."
        return self._problem(command, ended, b"".join(said))

    def _spawn(self, command: str, folder: Path) -> Child:
        return Child(
            shlex.split(command),
            cwd=folder,
            env=self._environment,
            stdout=folder / "stdout.txt",
            stderr=folder / "stderr.txt",
            mark=(MARK, self._mark),
            pass_fds=self._lock_fds,
            grace=_GRACE_S,
        )

    def _problem(self, command: str, ended: Ended, said: bytes) -> str | None:
        if ended.stopped == "timed_out":
            return f"`{command}` was stopped: reset and check took longer than {self._timeout_s:g} s."
        if ended.stopped is not None:
            return f"`{command}` was stopped: {ended.stopped.replace('_', ' ')}."
        if ended.exit_code == 0:
            return None
        last = last_line(said.decode("utf-8", "backslashreplace"))[-_MOST_SHOWN:]
        return f"`{command}` ended with exit code {ended.exit_code}: {last}"


def holders(folder: Path = Path("/dev/tenstorrent")) -> list[str]:
    """Every process, as far as one may look, that has a file of this folder open, such as ``1234 (python)``."""
    return [_name(pid) for pid in psutil.pids() if pid != os.getpid() and _has_open(pid, f"{folder}/")]


def _has_open(pid: int, prefix: str) -> bool:
    # Not psutil's open_files(), which tells of regular files only. Where there is no /proc, there is no such device.
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()).startswith(prefix):
                    return True
    return False


def _name(pid: int) -> str:
    try:
        return f"{pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return str(pid)
