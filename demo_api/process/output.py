"""The two files that a child prints into, followed while they grow and bounded in size."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

CHUNK = 256 * 1024
"""Bytes that are read at once."""

OnOutput = Callable[[str, bytes], None]
"""Called with ``stdout`` or ``stderr`` and the next bytes of it."""


def last_line(text: str) -> str:
    """The last line that a process printed that is not blank, safe to show on a terminal."""
    return printable(next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing"))


def printable(text: str) -> str:
    """What a process printed, with a question mark for whatever a terminal might obey."""
    return "".join(each if each.isprintable() else "?" for each in text.strip())


class OutputFiles:
    """The two files that a child prints into.

    Files, because a pipe blocks the child when nobody reads. They are opened for appending: so they can be cut while
    the child goes on printing, and a flood stays bounded on disk for as long as the child takes to close its device.
    """

    def __init__(self, stdout: Path, stderr: Path, undo: ExitStack) -> None:
        self.full = False
        self._room = 0
        self.mute()
        self._fds: dict[str, int] = {}
        self._offsets = {"stdout": 0, "stderr": 0}
        for stream, path in (("stdout", stdout), ("stderr", stderr)):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            undo.callback(path.unlink)
            undo.callback(os.close, fd)
            self._fds[stream] = fd

    def fd(self, stream: str) -> int:
        """The descriptor that the child prints into."""
        return self._fds[stream]

    def listen(self, max_output: int, on_output: OnOutput) -> None:
        """Makes ``look`` pass on what is printed, from the beginning, up to ``max_output`` bytes over all."""
        self._offsets = dict.fromkeys(self._offsets, 0)
        self._room = max_output
        self._on_output = on_output

    def mute(self) -> None:
        """Makes ``look`` pass nothing on."""
        self._on_output = lambda stream, chunk: None

    def look(self) -> bool:
        """Passes on one chunk of each stream at most, and cuts what is too much. True: there may be more."""
        behind = False
        for stream, fd in self._fds.items():
            offset = self._offsets[stream]
            if os.fstat(fd).st_size > offset + self._room:
                self.full = True
                os.ftruncate(fd, offset + self._room)
            chunk = os.pread(fd, min(CHUNK, self._room), offset)
            if chunk:
                self._offsets[stream] += len(chunk)
                self._room -= len(chunk)
                behind = behind or len(chunk) == CHUNK
                self._on_output(stream, chunk)
        return behind

    def close(self) -> None:
        """Closes both files."""
        for fd in self._fds.values():
            os.close(fd)
