"""What the children of batches have printed, in the database: so every door can show it, wherever it was printed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from demo_api.queue.database import Database
from demo_api.queue.schema import output

PIECE_BYTES = 256 * 2**10
"""The most that one row holds."""


class Output:
    """The output of the batches of all nodes. Only PostgreSQL has any: SQLite's servers share the files themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, batch_id: str, stream: str, number: int, data: bytes) -> None:
        """Adds a piece to a batch's stream, or replaces it: a write that seemed to fail may have added it.

        Args:
            stream: ``stdout`` or ``stderr``.
            number: the piece's place, from 0.
            data: at most ``PIECE_BYTES`` bytes.
        """
        piece = insert(output).values(batch_id=batch_id, stream=stream, number=number, data=data)
        with self._database.write() as connection:
            connection.execute(piece.on_conflict_do_update(constraint=output.primary_key, set_={"data": data}))

    def stream(self, batch_id: str, stream: str) -> StoredStream | None:
        """What was printed there so far; None where nothing is kept of it."""
        if not self._database.has_many_hosts:
            return None
        own = select(output.c.number, func.length(output.c.data)).where(
            output.c.batch_id == batch_id, output.c.stream == stream
        )
        with self._database.read() as connection:
            lengths = [length for _, length in connection.execute(own.order_by(output.c.number))]
        return StoredStream(self._database, batch_id, stream, lengths) if lengths else None


@dataclass(frozen=True)
class StoredStream:
    """One stream of a batch as it was at one moment.

    Attributes:
        lengths: of its pieces, in bytes.
    """

    database: Database
    batch_id: str
    stream: str
    lengths: list[int]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(self.lengths)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``; only the pieces that have them are fetched."""
        ends = [sum(self.lengths[: number + 1]) for number in range(len(self.lengths))]
        wanted = [number for number, at in enumerate(ends) if at > start and at - self.lengths[number] < end]
        if not wanted:
            return b""
        own = (output.c.batch_id == self.batch_id) & (output.c.stream == self.stream) & output.c.number.in_(wanted)
        with self.database.read() as connection:
            pieces = connection.execute(select(output.c.data).where(own).order_by(output.c.number)).scalars()
            first = ends[wanted[0]] - self.lengths[wanted[0]]
            return b"".join(pieces)[start - first : end - first]
