"""The reader of one stream's log records, serialised or plain: it gives the demo's own to a DemoLog."""

from __future__ import annotations

import re
from collections.abc import Sequence

from demo_api.messages import Event
from demo_api.transcript.demo_log import DECODING_OVER, DemoLog
from demo_api.transcript.plain_tail import FIRST_LINES, read_tail
from demo_api.transcript.records import (
    DEMO,
    LIBRARY,
    SERIALISED_RECORD,
    Record,
    find_plain_record,
    plain_record,
    serialised_records,
)

# Our pytest plugin writes records of the same shape; see ``demo_api_child.py`` and those beside it.
PLUGIN = "demo_api_child"

_EXIT_CODE = re.compile(r"-?[0-9]{1,9}")
_PROCESS = b'"process": {"id": '  # stands near a serialised record's end
# Records without any of these say nothing that is wanted here, and are most of the log while a model is loaded.
_WANTED = (*(name.encode() for name in (DEMO, PLUGIN, *LIBRARY)), b'"name": "ERROR"', b'"name": "CRITICAL"')
_LONGEST_ERROR = 4000  # characters
_LONGEST_TAIL = 8 * 2**20  # all answers of a batch of 32 with 2,048 tokens each are less than 1 MiB of usual text


class RecordReader:
    """Reads one stream line by line.

    Either every record is serialised or none is: the first record decides, and what looks like the other kind after it
    was printed by a model.

    Attributes:
        demo_log: what the demo's records have said.
        has_records: whether there was a record. Our plugin's does not count: it is on stderr even where the log is not.
        last_error: the last message of level ERROR or CRITICAL, of any module.
        model_was_kept: whether the demo was given a model that the child had loaded for an earlier batch.
        exit_code: pytest's, of a child that stays for further batches; None while this one has not ended.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self.demo_log = DemoLog(prompts)
        self.has_records = False
        self.last_error: str | None = None
        self.model_was_kept = False
        self.exit_code: int | None = None
        self._prompts = prompts
        self._process: float | None = None
        self._sources: dict[str, str] = {}
        self._tail: bytearray | None = None  # plain text only: everything from the end of decoding on
        self._tail_size = 0

    def feed(self, line: bytes) -> list[Event]:
        """Takes in the next line, without its newline.

        Returns:
            the events that it tells of.
        """
        if self._tail is not None:
            self._add_to_tail(line + b"\n")
            return []
        if len(line) < len(_PROCESS):
            return []  # it is not even a piece of a record
        if self.demo_log.serialised:
            return self._feed_serialised(line)
        at, match = line.find(SERIALISED_RECORD), find_plain_record(line)
        if at >= 0 and (not match or at < match.start()):
            return self._feed_serialised(line)
        is_piece = not self.has_records and _PROCESS in line  # the end of a record whose beginning was cut off
        return self._feed_plain(line, match) if match and not is_piece else []

    def finish(self, rest: bytes, ended: bool, merged: bool) -> None:
        """Reads what only the end of the stream makes readable.

        Args:
            rest: a last line without a newline.
            ended: the child came to an orderly end, so that nothing of the log is missing at its end.
            merged: the stream has pytest's report too.
        """
        if self._tail is None:
            if self.demo_log.serialised:
                self._feed_serialised(rest)
            return
        self._add_to_tail(rest)
        ended = ended and self._tail_size <= _LONGEST_TAIL
        for message in read_tail(self._prompts, bytes(self._tail), self._sources, ended, merged):
            self.demo_log.feed(message, None)

    def _feed_serialised(self, line: bytes) -> list[Event]:
        if SERIALISED_RECORD not in line:
            # The rest of a record that something else was printed into.
            if _PROCESS in line:
                self.demo_log.lose()
            return []
        if self.has_records and not any(word in line for word in _WANTED):
            return []
        events: list[Event] = []
        for record in serialised_records(line):
            if record is None:
                self.demo_log.lose()
            elif record.name == PLUGIN:
                events += self._read_plugin(record)
            # Else it is not loguru's, or printed by a model into a log of plain lines.
            elif record.process is not None and (self.demo_log.serialised or not self.has_records):
                self.demo_log.serialised = True
                events += self._read(record)
        return events

    def _feed_plain(self, line: bytes, match: re.Match[bytes]) -> list[Event]:
        record = plain_record(match)
        if record.is_demo:
            if record.message in ("", DECODING_OVER):
                self._tail = bytearray()
            if not record.message:  # the first line of an answer's message
                self._add_to_tail(line[match.start() :] + b"\n")
            if record.message in FIRST_LINES:
                self._sources.setdefault(record.message, record.source)
        return self._read(record)

    def _read_plugin(self, record: Record) -> list[Event]:
        word, _, rest = record.message.partition(" ")
        if word == "collected":
            return self.demo_log.begin_phase("load", record.at)
        if word == "text":
            return self.demo_log.read_text(rest, record.at)
        if word == "waiting":
            self.demo_log.waiting_at = record.at
        elif word == "kept":
            self.model_was_kept = True
        elif word == "ended" and self.exit_code is None and _EXIT_CODE.fullmatch(rest):
            self.exit_code = int(rest)
        return []

    def _read(self, record: Record) -> list[Event]:
        self.has_records = True
        if record.level in ("ERROR", "CRITICAL"):
            self.last_error = record.message[:_LONGEST_ERROR]
        if record.is_demo:
            self._process = self._process or record.process
        if record.process != self._process:
            return []  # a process that the demo started repeats what it has inherited
        if record.is_library:
            self.demo_log.feed_library(record.message)
        if not record.is_demo:
            return []
        return self.demo_log.feed(record.message, record.at, traced=record.level == "TRACE")

    def _add_to_tail(self, piece: bytes) -> None:
        self._tail_size += len(piece)
        if self._tail is not None and self._tail_size <= _LONGEST_TAIL:
            self._tail += piece
