"""The demo's log on one stream, line by line: one JSON object a record, or plain loguru lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demo_api.messages import Event
from demo_api.transcript import plain
from demo_api.transcript.demo_log import DECODING_OVER, DemoLog

# Our pytest plugin writes records of the same shape: "waiting" to be told a batch, and "collected" before the test.
PLUGIN = "demo_api_child"

# How loguru begins a serialised record. Its quotes cannot occur inside a record, where JSON escapes them.
_RECORD = '{"text": "'
_RECORD_BYTES = _RECORD.encode()
_PROCESS = b'"process": {"id": '  # stands near a record's end
# Records without any of these say nothing that is wanted here, and are most of the log while a model is loaded.
_WANTED = (plain.DEMO.encode(), PLUGIN.encode(), b'"name": "ERROR"', b'"name": "CRITICAL"')
_MOST_RECORDS_A_LINE = 8
# Integers as floats: in Python 3.10 reading an int of a million digits takes minutes.
_DECODER = json.JSONDecoder(parse_int=float)
_LONGEST_TAIL = 8 * 2**20  # all answers of a batch of 32 with 2,048 tokens each are less than 1 MiB of usual text


@dataclass(frozen=True)
class _Record:
    process: float | None
    name: str
    function: str
    level: str
    message: str
    at: float | None


class RecordReader:
    """Reads the lines of one stream and tells a DemoLog what the demo's own logger said.

    Either every record is serialised or none is: which, the first record decides, and what looks like the other kind
    from then on was printed by a model.

    Attributes:
        heard: whether there was a record (our plugin's does not count: it goes to stderr even where the log does not).
        last_error: the last message of level ERROR or CRITICAL, whoever logged it.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self.demo_log = DemoLog(prompts)
        self.heard = False
        self.last_error: str | None = None
        self._prompts = prompts
        self._process: float | None = None
        self._places: dict[str, str] = {}
        self._tail: bytearray | None = None  # plain text only: everything from the end of decoding on
        self._tail_size = 0

    def line(self, line: bytes) -> list[Event]:
        """The events of one line, given without its newline."""
        if self._tail is not None:
            self._keep(line)
            self._keep(b"\n")
            return []
        if self.demo_log.serialised:
            return self._serialised(line)
        at, match = line.find(_RECORD_BYTES), plain.LINE.search(line) if b" | " in line else None
        if at >= 0 and (not match or at < match.start()):
            return self._serialised(line)
        is_piece = not self.heard and _PROCESS in line  # the end of a record whose beginning was cut off
        return self._plain(line, match) if match and not is_piece else []

    def finish(self, rest: bytes, ended: bool, merged: bool) -> None:
        """The stream is at its end.

        Args:
            rest: a last line without a newline.
            ended: the child came to an orderly end, so that nothing of the log is missing at its end.
            merged: the stream holds pytest's report too.
        """
        if self._tail is None:
            if self.demo_log.serialised:
                self._serialised(rest)
            return
        self._keep(rest)
        text = self._tail.decode("utf-8", "surrogateescape")
        ended = ended and self._tail_size <= _LONGEST_TAIL
        for message in plain.read_tail(self._prompts, text, self._places, ended, merged):
            self.demo_log.hear(message, None)

    def _keep(self, piece: bytes) -> None:
        self._tail_size += len(piece)
        if self._tail is not None and self._tail_size <= _LONGEST_TAIL:
            self._tail += piece

    def _serialised(self, line: bytes) -> list[Event]:
        if _RECORD_BYTES not in line:
            # The rest of a record that something else was printed into.
            self.demo_log.damaged = self.demo_log.damaged or _PROCESS in line
            return []
        if self.heard and not any(word in line for word in _WANTED):
            return []
        events: list[Event] = []
        for record in _records(line):
            if record:
                events += self._take(record)
            else:
                self.demo_log.damaged = True
        return events

    def _take(self, record: _Record) -> list[Event]:
        if record.name == PLUGIN:
            if record.message == "waiting":
                self.demo_log.waiting_at = record.at
            return self.demo_log.begin("load", record.at) if record.message == "collected" else []
        if record.process is None or (self.heard and not self.demo_log.serialised):
            return []  # not loguru's, or printed by a model into a log of plain lines
        self.heard = self.demo_log.serialised = True
        if record.level in ("ERROR", "CRITICAL"):
            self.last_error = record.message
        if not plain.is_demo(record.name, record.function):
            return []
        self._process = self._process or record.process
        if record.process != self._process:
            return []  # a process that the demo started repeats what it has inherited
        return self.demo_log.hear(record.message, record.at, traced=record.level == "TRACE")

    def _plain(self, line: bytes, match: re.Match[bytes]) -> list[Event]:
        self.heard = True
        record = plain.Record(match)
        if record.level in ("ERROR", "CRITICAL"):
            self.last_error = record.message
        if not plain.is_demo(record.name, record.function):
            return []
        if record.message in ("", DECODING_OVER):
            self._tail = bytearray()
            self._keep(line[match.start() :] + b"\n" if not record.message else b"")
        if record.message in plain.FIRST_LINES:
            self._places.setdefault(record.message, record.place)
        return self.demo_log.hear(record.message, None, traced=record.level == "TRACE")


def _records(line: bytes) -> Iterator[_Record | None]:
    """The records of a line, None for one that is not whole; something else may be glued before, between or after."""
    try:
        text = line[line.find(_RECORD_BYTES) :].decode("utf-8")
    except UnicodeDecodeError:
        yield None
        return
    at = 0
    for _ in range(_MOST_RECORDS_A_LINE):
        at = text.find(_RECORD, at)
        if at < 0:
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += len(_RECORD)
            if text[at : at + 4].isdigit() or len(text) < at + 4:  # a record's text begins with the year
                yield None
            continue
        record = _record(value)
        if record:
            yield record


def _record(value: object) -> _Record | None:
    inner = _get(value, "record")
    name, message, at = _get(inner, "name"), _get(inner, "message"), _get(_get(inner, "time"), "timestamp")
    if not isinstance(name, str) or not isinstance(message, str):
        return None
    process, function, level = _get(_get(inner, "process"), "id"), _get(inner, "function"), _get(inner, "level")
    return _Record(
        process=process if isinstance(process, float) else None,
        name=name,
        function=function if isinstance(function, str) else "",
        level=str(_get(level, "name")),
        message=message,
        at=at if isinstance(at, float) and math.isfinite(at) else None,
    )


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None
