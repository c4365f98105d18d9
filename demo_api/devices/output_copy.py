"""Copies what a batch's child prints into the database, for the doors of other hosts."""

from __future__ import annotations

from contextlib import suppress

from demo_api.demo.run_folder import RunFolder
from demo_api.queue.output import PIECE_BYTES, Output


class OutputCopy:
    """The copy of one batch's output."""

    def __init__(self, output: Output, folder: RunFolder) -> None:
        self._output = output
        self._folder = folder
        self._copied = {"stdout": (0, 0), "stderr": (0, 0)}  # pieces and bytes

    def catch_up(self) -> None:
        """Copies what was printed since the last time.

        Raises:
            LedgerUnavailable: not all could be copied; the next time goes on from there.
        """
        for name, path in (("stdout", self._folder.stdout), ("stderr", self._folder.stderr)):
            with suppress(FileNotFoundError), open(path, "rb") as file:  # there may be no child yet
                file.seek(self._copied[name][1])
                while data := file.read(PIECE_BYTES):
                    pieces, size = self._copied[name]
                    self._output.append(self._folder.path.name, name, pieces, data)
                    self._copied[name] = pieces + 1, size + len(data)
