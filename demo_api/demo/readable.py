"""Makes what a child printed readable for a person, wherever the bytes are kept."""

from __future__ import annotations

import json
from collections.abc import Callable

READABLE_LIMIT = 2**20
"""Bytes of each stream that an answer's ``output`` shows."""


def readable(size: int, read: Callable[[int, int], bytes], whole: str) -> str:
    """One stream as text: of the demo's log records, what they say. Of a long one the middle is left out.

    Args:
        size: of the stream, in bytes.
        read: returns its bytes from a place to before another.
        whole: where the whole is, as the rest of a sentence that begins with "the whole".
    """
    if size <= READABLE_LIMIT:
        return _decoded(read(0, size))
    head = read(0, READABLE_LIMIT // 2)
    _, _, tail = read(size - READABLE_LIMIT // 2, size).partition(b"\n")  # from the first whole line on
    return f"{_decoded(head)}\n[{size - READABLE_LIMIT} bytes are left out here; the whole {whole}]\n{_decoded(tail)}"


def _decoded(text: bytes) -> str:
    return "".join(map(_decoded_line, text.splitlines(keepends=True)))


def _decoded_line(line: bytes) -> str:
    if line.startswith(b'{"text": '):
        try:
            text = json.loads(line)["text"]
        except (ValueError, RecursionError):
            pass
        else:
            return str(text)
    return line.decode("utf-8", "replace")
