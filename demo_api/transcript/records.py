"""Records of the child's log: one JSON object each, or a plain loguru line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

DEMO = "simple_text_demo"
TEST_FUNCTION = "test_demo_text"
# What the demo calls: the functions whose messages tell of the prompts and of the device, and their modules.
LIBRARY = {
    "preprocess_inputs_prefill": "models.tt_transformers.tt.common",
    "__init__": "models.tt_transformers.tt.model_config",
}

STAMP_LENGTH = len("2026-11-22 02:14:40.449")
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
_PLAIN_RECORD = re.compile(rf"{STAMP} \| ([A-Z]+) *\| (([^ |:]+):([^:|]*):\d+) - (.*)".encode(), re.DOTALL)

# How loguru begins a serialised record. Its quotes cannot occur inside a record, where JSON escapes them.
SERIALISED_RECORD = b'{"text": "'
_BEGIN = SERIALISED_RECORD.decode()
_MOST_RECORDS_A_LINE = 8
# Integers as floats: in Python 3.10 reading an int of a million digits takes minutes.
_LONG = 2**16  # characters of a line that is looked at before it is decoded
_MOST_STRINGS = 1000  # in one record; loguru's have about 70
_MOST_BETWEEN = 1000  # characters between two strings
_DECODER = json.JSONDecoder(parse_int=float)


@dataclass(frozen=True)
class Record:
    """One message and where it comes from.

    Attributes:
        name: the module that logged it.
        function: the function that logged it.
        level: such as ``INFO``.
        message: all of it; of a plain record its first line, because nothing marks where the others end.
        at: Unix seconds on the child's clock; None where unknown, as in plain records.
        process: the id of the process that logged it; None likewise, and where the record is not loguru's.
        source: ``module:function:line`` of a plain record; else empty.
    """

    name: str
    function: str
    level: str
    message: str
    at: float | None = None
    process: float | None = None
    source: str = ""

    @property
    def is_demo(self) -> bool:
        """Whether the demo's test logged it; how its module is called depends on pytest's import mode."""
        return self.name.rpartition(".")[2] == DEMO and self.function == TEST_FUNCTION

    @property
    def is_library(self) -> bool:
        """Whether it is of a function of tt-metal's that tells what the demo itself does not."""
        return LIBRARY.get(self.function) == self.name


def find_plain_record(line: bytes) -> re.Match[bytes] | None:
    """The first plain record in a line; something else may be glued before it.

    It is found by what stands behind its stamp: an expression that searches holds the interpreter for a whole line.
    """
    at = line.find(b" | ")
    while at >= 0:
        match = _PLAIN_RECORD.match(line, max(at - STAMP_LENGTH, 0))
        if match:
            return match
        at = line.find(b" | ", at + 1)
    return None


def plain_record(match: re.Match[bytes]) -> Record:
    """The record that was found."""
    level, source, name, function, message = (group.decode("utf-8", "replace") for group in match.groups())
    return Record(name, function, level, message, source=source)


def serialised_records(line: bytes) -> Iterator[Record | None]:
    """The records of a line, None for one that is not whole; something else may be glued before, between or after."""
    try:
        text = line[line.find(SERIALISED_RECORD) :].decode("utf-8")
    except UnicodeDecodeError:
        yield None
        return
    at = 0
    for _ in range(_MOST_RECORDS_A_LINE):
        at = text.find(_BEGIN, at)
        if at < 0:
            return
        if len(text) > _LONG and not _is_flat(text, at):
            yield None
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += len(_BEGIN)
            if text[at : at + 4].isdigit() or len(text) < at + 4:  # a record's text begins with the year
                yield None
            continue
        record = _record(value)
        if record:
            yield record


def _is_flat(text: str, at: int) -> bool:
    """Whether this may be a record's JSON: a few strings, however long, and little between them.

    Of 3 bytes of JSON Python can make an object of 60, so that a long line of nothing else would fill the memory.
    """
    depth = 0
    for _ in range(_MOST_STRINGS):
        quote = text.find('"', at, at + _MOST_BETWEEN)
        between = text[at : at + _MOST_BETWEEN if quote < 0 else quote]
        depth += between.count("{") - between.count("}")
        if quote < 0 or depth <= 0:
            return depth <= 0
        try:
            _, at = _DECODER.raw_decode(text, quote)
        except ValueError:
            return True  # it is cut, which costs nothing to find out
    return False


def _record(value: object) -> Record | None:
    inner = _get(value, "record")
    name, message, at = _get(inner, "name"), _get(inner, "message"), _get(_get(inner, "time"), "timestamp")
    if not isinstance(name, str) or not isinstance(message, str):
        return None
    process, function, level = _get(_get(inner, "process"), "id"), _get(inner, "function"), _get(inner, "level")
    return Record(
        name=name,
        function=function if isinstance(function, str) else "",
        level=str(_get(level, "name")),
        message=message,
        at=at if isinstance(at, float) and math.isfinite(at) else None,
        process=process if isinstance(process, float) else None,
    )


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None
