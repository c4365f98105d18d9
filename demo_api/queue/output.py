"""What the children of batches have printed, in the database: so every door can show it, wherever it was printed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import accumulate

from sqlalchemy import Connection, delete, func, insert, select

from demo_api.demo.readable import readable
from demo_api.queue.database import Database
from demo_api.queue.schema import batches, output

PIECE_BYTES = 64 * 2**10
"""What one row holds; the last one of a stream holds less."""


class Output:
    """The output of the batches of all nodes. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_kept(self) -> bool:
        """Whether the database has any: PostgreSQL. SQLite's servers share the files themselves."""
        return self._database.has_many_hosts

    def write(self, batch_id: str, parts: Mapping[str, tuple[int, bytes]]) -> bool:
        """Writes parts of an open batch's streams, in place of all that was there from their beginnings on.

        So whoever does not know whether that has succeeded does it again.

        Args:
            parts: by ``stdout`` or ``stderr``: the number, from 0, of the piece that a part begins with, and its bytes.

        Returns:
            False: the batch is no longer open, and nothing was written.
        """
        is_open = select(batches.c.batch_id).where(batches.c.batch_id == batch_id, batches.c.state == "open")
        pieces = [
            {"batch_id": batch_id, "stream": stream, "number": number, "data": data[start : start + PIECE_BYTES]}
            for stream, (first, data) in parts.items()
            for number, start in enumerate(range(0, max(len(data), 1), PIECE_BYTES), first)
        ]
        with self._database.write() as connection:
            if connection.execute(is_open).first() is None:
                return False
            for stream, (first, _) in parts.items():
                own = (output.c.batch_id == batch_id) & (output.c.stream == stream)
                connection.execute(delete(output).where(own, output.c.number >= first))
            connection.execute(insert(output), pieces)
        return True

    def readable(self, batch_id: str) -> str | None:
        """What the batch's child has printed, as ``RunFolder.readable_log`` has it; None where nothing is kept."""
        if not self.is_kept:
            return None
        with self._database.read() as connection:
            device = connection.execute(select(batches.c.device).where(batches.c.batch_id == batch_id)).scalar() or ""
            streams = {stream: _lengths(connection, batch_id, stream) for stream in ("stderr", "stdout")}
            if not any(streams.values()):
                return None
            place = f"runs/{batch_id} in the state folder of the node {device.rpartition('/')[0]}"
            return "".join(
                readable(
                    sum(lengths),
                    partial(_read, connection, batch_id, stream, lengths),
                    f"was written to {stream}.txt of {place}",
                )
                for stream, lengths in streams.items()
            )


def _lengths(connection: Connection, batch_id: str, stream: str) -> list[int]:
    """Of a stream's pieces, in bytes; PostgreSQL knows them without fetching the pieces."""
    own = select(func.length(output.c.data)).where(output.c.batch_id == batch_id, output.c.stream == stream)
    return list(connection.execute(own.order_by(output.c.number)).scalars())


def _read(connection: Connection, batch_id: str, stream: str, lengths: list[int], start: int, end: int) -> bytes:
    """The bytes of a stream from ``start`` to before ``end``; fetches only the pieces that have them."""
    begins = list(accumulate(lengths, initial=0))
    wanted = [number for number, begin in enumerate(begins[:-1]) if begin < end and begins[number + 1] > start]
    if not wanted:
        return b""
    own = (output.c.batch_id == batch_id) & (output.c.stream == stream)
    near = output.c.number.between(wanted[0], wanted[-1])
    pieces = connection.execute(select(output.c.data).where(own, near).order_by(output.c.number)).scalars()
    begin = begins[wanted[0]]
    return b"".join(pieces)[start - begin : end - begin]
