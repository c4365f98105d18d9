"""Joins chunks of bytes, cut anywhere, to whole lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

# The longest genuine line is the record of an answer: 2,048 tokens of at most 128 characters each (the longest token
# of Llama 3's vocabulary), of which JSON makes at most six bytes a character, printed twice ("text" and "message").
# That is 3.1 MiB; whatever is far beyond it cannot be a record.
LONGEST_LINE = 4 * 2**20
_STEP = 2**16


class LineSplitter:
    """Makes whole lines of chunks.

    Only ``\\n`` ends a line: answers may hold ``\\r``, U+2028 and everything else that ``str.splitlines`` cuts at.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # the unfinished one
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that this chunk completes, without their newline; None for one that is too long to be kept."""
        for begin in range(0, len(chunk), _STEP):  # however long a chunk is, few of its lines are there at a time
            first, *others = chunk[begin : begin + _STEP].split(b"\n")
            self._keep(first)
            if others:
                yield self.flush()
                yield from others[:-1]
                self._keep(others[-1])

    def flush(self) -> bytes | None:
        """The unfinished line, None if it is too long; the next chunk begins a new one."""
        line = None if self._too_long else bytes(self._line)
        self._line, self._too_long = bytearray(), False
        return line

    def _keep(self, piece: bytes) -> None:
        self._too_long = self._too_long or len(self._line) + len(piece) > LONGEST_LINE
        if self._too_long:
            self._line = bytearray()
        else:
            self._line += piece
