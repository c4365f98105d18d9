"""What a child and its server say to each other.

The server writes lines of JSON to the standard input of a child that waits, which is set aside at its start. The child
writes records among what else it prints to standard error.

Standard library only, Python 3.8+, like all in this folder.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

_control: int | None = None
_read = b""


def open_control() -> None:
    """Sets standard input aside, once. The test finds the one of a child that starts for its batch: at its end."""
    global _control
    if _control is None:
        _control = os.dup(0)  # descendants do not inherit it
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)


def next_line() -> dict[str, Any] | None:
    """Waits for the next line that is not about a run which has ended; None at the end of input."""
    while True:
        line = _line()
        if line is None or "end" not in line:
            return line


def users_to_end() -> list[int]:
    """The users, by their places in the batch, that the server wants to be done now, as far as it has said so."""
    users: list[int] = []
    while _control is not None and (b"\n" in _read or select.select([_control], [], [], 0)[0]):
        line = _line()
        if line is None:
            break
        users += line.get("end", [])
    return users


def _line() -> dict[str, Any] | None:
    global _read
    while b"\n" not in _read:
        piece = os.read(_control, 65536) if _control is not None else b""
        if not piece:
            return None
        _read += piece
    line, _, _read = _read.partition(b"\n")
    return json.loads(line)  # type: ignore[no-any-return]


def log(message: str) -> None:
    """Tells the server something, among what else this process writes to standard error."""
    # In the shape of a serialised loguru record, so that one reader reads all; one write, so that nothing interleaves.
    record = {"name": "demo_api_child", "message": message, "time": {"timestamp": time.time()}}
    os.write(2, (json.dumps({"text": "demo_api_child: %s\n" % message, "record": record}) + "\n").encode())
