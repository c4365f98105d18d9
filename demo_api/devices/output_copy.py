"""Copies what a batch's child prints into the ledger, for the doors of other hosts."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from types import TracebackType

from demo_api.demo.run_folder import RunFolder
from demo_api.errors import LedgerUnavailable
from demo_api.queue.output import PIECE_BYTES, Output

logger = logging.getLogger(__name__)

COPY_SECONDS = 1.0
"""How often what was printed meanwhile is copied."""

_BYTES_AT_ONCE = 16 * PIECE_BYTES
"""Of each stream, in one transaction."""


class OutputCopy:
    """The copy of one batch's output in the ledger; does nothing where servers share the files.

    While the ``with`` block runs, a thread brings it up to date again and again, and once more at the end: after a
    flood that takes long, and outside of such a block nobody renews the batch's lease.

    Args:
        max_output: bytes that the child may print; not more are copied.
    """

    def __init__(self, output: Output, folder: RunFolder, max_output: int) -> None:
        self._output = output
        self._batch_id = folder.path.name
        self._paths = {"stdout": folder.stdout, "stderr": folder.stderr}
        self._max_output = max_output
        self._copied: dict[str, int] = {}  # bytes of each stream that was copied
        self._logged = ""
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"output-{self._batch_id}")

    def __enter__(self) -> None:
        if self._output.is_kept:
            self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_ended.set()
        if self._output.is_kept:
            self._thread.join()

    def catch_up(self) -> None:
        """Copies what the files have now. What cannot be read is logged: it is not worth the batch.

        Raises:
            LedgerUnavailable: not all could be copied; the next time goes on from there.
        """
        if not self._output.is_kept:
            return
        try:
            self._copy(self._sizes())
        except OSError as error:
            self._log(error)

    def _work(self) -> None:
        while not self._has_ended.wait(COPY_SECONDS):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.catch_up()
        except LedgerUnavailable as error:
            self._log(error)

    def _log(self, error: Exception) -> None:
        if str(error) != self._logged:
            logger.warning("batch %s: its output could not be copied: %s", self._batch_id, error)
        self._logged = str(error)

    def _sizes(self) -> dict[str, int]:
        """Bytes that are to be copied of each stream that is there: what a child prints beyond the limit is cut off."""
        sizes, room = {}, self._max_output
        for stream, path in self._paths.items():
            with suppress(FileNotFoundError):  # there may be no child yet
                sizes[stream] = min(path.stat().st_size, room)
                room -= sizes[stream]
        return sizes

    def _copy(self, sizes: dict[str, int]) -> None:
        """Copies so much and no more: a child that prints without a pause would never be caught up with."""
        while behind := [stream for stream, size in sizes.items() if self._copied.get(stream) != size]:
            parts = {}
            for stream in behind:
                # The last piece is written anew, with what it has grown by, or what is left of it after a cut.
                first = min(self._copied.get(stream, 0), sizes[stream]) // PIECE_BYTES
                start = first * PIECE_BYTES
                end = min(start + _BYTES_AT_ONCE, sizes[stream])
                data = self._read(stream, start, end)
                if len(data) < end - start:  # it was cut just now
                    sizes[stream] = start + len(data)
                parts[stream] = first, data
            if not self._output.write(self._batch_id, parts):
                return
            self._copied |= {stream: first * PIECE_BYTES + len(data) for stream, (first, data) in parts.items()}

    def _read(self, stream: str, start: int, end: int) -> bytes:
        with open(self._paths[stream], "rb") as file:
            file.seek(start)
            return file.read(end - start)
