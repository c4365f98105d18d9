"""The end of a plain loguru log, with the answers: nothing in it marks where a message of several lines ends.

Before the answers every message of the demo is one line, and what a model wrote stands in it behind ``[User n]``. What
comes after is kept whole and read at the end, by what is known: the order of users, their prompts, the source line
that a kind of message comes from, and that the demo strips answers. A model that prints an exact copy of the lines
that follow its answer can mislead this; it cannot mislead serialised records.

Whatever is looked for is found by its fixed bytes first, and only then matched: an expression that searches by itself
would hold the interpreter for the whole of a long log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from demo_api.transcript.demo_log import answer_header
from demo_api.transcript.records import DEMO, STAMP, STAMP_LENGTH, TEST_FUNCTION, find_plain_record, plain_record

# What a batch and a test begin with, and how a second one does.
FIRST_LINES = {"Processing batch 0": "Processing batch 1", "Reading inputs...": "Reading inputs..."}

_LEVEL = b" | INFO"
_LONGEST_HEAD = 300  # bytes from the stamp to the message
_HEAD = re.compile(rf"{STAMP} \| INFO +\| ((?:[^ |:]*\.)?{DEMO}:{TEST_FUNCTION}:\d+)".encode())
_METRICS = b"=== Performance metrics ===\n"
# What can stand between an answer and the demo's next line: tt-metal's C++ lines, and one line where stop_at_eos is 0.
_BETWEEN = re.compile(
    rf"{STAMP} \| [a-z]+ *\| .*|".encode() + _HEAD.pattern + rb" - Please note that 'stop_at_eos' is disabled\..*"
)
_NEXT = re.compile(rf"{STAMP} \| |Fatal Python error: ".encode())
_NEXT_MERGED = re.compile(_NEXT.pattern + rb"|(?:PASSED|FAILED|ERROR)\b|=+ .+ =+\n|-+ Captured .+ -+\n")


class _Found(NamedTuple):
    """A message of the demo in the text: where its record begins, where it ends, and the source line it comes from."""

    start: int
    end: int
    source: bytes


def read_tail(
    prompts: Sequence[str], text: bytes, sources: Mapping[str, str], ended: bool, merged: bool
) -> Iterator[str]:
    """The demo's messages from the end of decoding on.

    Args:
        text: the log from there on.
        sources: message -> the source line that it came from, for the messages before.
        ended: nothing is missing at the end of the text.
        merged: pytest's report is in it too.
    """
    test_end = _again(text, len(text), "Reading inputs...", sources)
    batch_end = _again(text, test_end or len(text), "Processing batch 0", sources)
    size = batch_end or test_end or len(text)
    last: int | None = None
    for header, begin, end in _blocks(prompts, text[:size], ended or size < len(text), merged):
        last = end
        answer = _decoded(text[begin:end]) if end is not None else None
        if answer is not None:
            yield header + answer.strip() + "\n"
    metrics = _last_metrics(text[: test_end or len(text)], 0)
    rest = last if metrics is None else metrics
    if rest is not None:
        yield from _messages(text[rest : test_end or len(text)])


def _messages(text: bytes) -> Iterator[str]:
    """The demo's messages of one line."""
    begin = 0
    while (end := text.find(b"\n", begin)) >= 0:
        match = find_plain_record(text[begin:end])
        if match and (record := plain_record(match)).is_demo:
            yield record.message
        begin = end + 1


def _again(text: bytes, size: int, first: str, sources: Mapping[str, str]) -> int | None:
    """Where a second test or batch begins; None if none does.

    It begins with a line that is known from the first one, so it must come from the same source line.
    """
    if first not in sources:
        return None
    found = _find(text[:size], f"{FIRST_LINES[first]}\n".encode(), 0, sources[first].encode())
    # From the start of the line: something else may be glued before it.
    return text.rfind(b"\n", 0, found.start) + 1 if found else None


def _blocks(prompts: Sequence[str], text: bytes, ended: bool, merged: bool) -> Iterator[tuple[str, int, int | None]]:
    """Header, begin and end of the answers of users 0, 1, ...; the end is None where the text does not show it."""
    headers = [answer_header(user, prompt) for user, prompt in enumerate(prompts)]
    # loguru writes to stderr, which prints a lone surrogate as an escape.
    shown = [header.encode("utf-8", "backslashreplace") for header in headers]
    found = _find(text, shown[0], 0) if shown else None
    for user, header in enumerate(headers):
        if not found:
            return
        begin = found.end
        is_last = user == len(headers) - 1
        found = None if is_last else _find(text, shown[user + 1], begin, found.source)
        if found:
            end = _end_before(text, begin, found.start)
        else:
            end = _last_end(text, begin, ended, merged, metrics_follow=is_last)
        yield header, begin, end


def _find(text: bytes, message: bytes, begin: int, source: bytes | None = None) -> _Found | None:
    """The first time from there on that the demo logs a message with this beginning."""
    at = text.find(b" - " + message, begin)
    while at >= 0:
        match = _head_before(text, begin, at)
        if match and source in (None, match[1]):
            return _Found(match.start(), at + len(b" - ") + len(message), match[1])
        at = text.find(b" - " + message, at + 1)
    return None


def _head_before(text: bytes, begin: int, end: int) -> re.Match[bytes] | None:
    """What stands before the message of a record of the demo, where such a head ends at ``end``."""
    start = text.rfind(_LEVEL, max(begin, end - _LONGEST_HEAD), end) - STAMP_LENGTH
    return _HEAD.fullmatch(text, start, end) if start >= begin else None


def _last_metrics(text: bytes, begin: int) -> int | None:
    """Where the last metrics begin, with an empty message of their own."""
    last, at = None, begin
    while metrics := _find(text, _METRICS, at):
        empty = b" - \n"
        if text.endswith(empty, begin, metrics.start):
            head = _head_before(text, begin, metrics.start - len(empty))
            last = head.start() if head else last
        at = metrics.end
    return last


def _end_before(text: bytes, begin: int, position: int) -> int | None:
    """Where the answer from begin on ends, given that the demo's next line is at this position."""
    position = max(begin, text.rfind(b"\n", begin, position) + 1)  # a C++ line may be glued before it
    while True:
        before = text.rfind(b"\n", begin, position - 1) + 1 or begin
        if before >= position or not _BETWEEN.fullmatch(text, before, position - 1):
            break
        position = before
    return position - 2 if text.endswith(b"\n\n", begin, position) else None


def _last_end(text: bytes, begin: int, ended: bool, merged: bool, metrics_follow: bool) -> int | None:
    """Where the last answer ends: before the metrics or else before whatever else is known to come next."""
    metrics = _last_metrics(text, begin)
    if metrics is not None:
        # Where others were to follow, the next user's header is damaged, and the answer might go on behind it.
        return _end_before(text, begin, metrics) if metrics_follow else None
    following = _NEXT_MERGED if merged else _NEXT
    at = text.find(b"\n\n", begin)
    while at >= 0:
        if following.match(text, at + 2):
            return at
        at = text.find(b"\n\n", at + 1)
    return len(text) - 2 if ended and text.endswith(b"\n\n", begin) else None


def _decoded(answer: bytes) -> str | None:
    try:
        return answer.decode("utf-8")
    except UnicodeDecodeError:
        return None
