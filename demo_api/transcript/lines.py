"""Joins chunks of bytes, cut anywhere, to whole lines, in bounded memory."""

from __future__ import annotations

# The longest genuine line is the record of an answer: 2,048 tokens of at most 128 characters each (the longest token
# of Llama 3's vocabulary), of which JSON makes at most six bytes a character, printed twice ("text" and "message").
# That is 3.1 MiB; whatever is far beyond it cannot be a record.
LONGEST_LINE = 8 * 2**20


class LineSplitter:
    """Makes whole lines of chunks.

    Only ``\\n`` ends a line: answers may hold ``\\r``, U+2028 and everything else that ``str.splitlines`` cuts at.

    Attributes:
        dropped: how many lines were longer than LONGEST_LINE bytes and thrown away.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their newline."""
        *ends, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        if ends:
            self._keep(ends[0])
            lines = self.flush() + [line for line in ends[1:] if self._fits(line)]
        self._keep(rest)
        return lines

    def flush(self) -> list[bytes]:
        """The unfinished line, unless it is too long; the next chunk begins a new one."""
        line = b"".join(self._pieces)
        fits = self._fits_size(self._size)
        self._pieces, self._size = [], 0
        return [line] if fits else []

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LONGEST_LINE:
            self._pieces = []
        elif piece:
            self._pieces.append(piece)

    def _fits(self, line: bytes) -> bool:
        return self._fits_size(len(line))

    def _fits_size(self, size: int) -> bool:
        self.dropped += size > LONGEST_LINE
        return size <= LONGEST_LINE
