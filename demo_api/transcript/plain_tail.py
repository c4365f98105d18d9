"""The end of a plain loguru log, with the answers: nothing in it marks where a message of several lines ends.

Before the answers every message of the demo is one line, and what a model wrote stands in it behind ``[User n]``. What
comes after is kept whole and read at the end, by what is known: the order of users, their prompts, the source line
that a kind of message comes from, and that the demo strips answers. A model that prints an exact copy of the lines
that follow its answer can mislead this; it cannot mislead serialised records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from demo_api.transcript.demo_log import answer_header
from demo_api.transcript.records import DEMO, PLAIN_RECORD, STAMP, TEST_FUNCTION, plain_record

# What a batch and a test begin with, and how a second one does.
FIRST_LINES = {"Processing batch 0": "Processing batch 1", "Reading inputs...": "Reading inputs..."}

_SOURCE = rf"(?:[^ |:]*\.)?{DEMO}:{TEST_FUNCTION}:\d+"
_INFO = rf"{STAMP} \| INFO +\| "
_METRICS = re.compile(rf"{_INFO}{_SOURCE} - \n{_INFO}{_SOURCE} - === Performance metrics ===\n")
# What can stand between an answer and the demo's next line: tt-metal's C++ lines, and one line where stop_at_eos is 0.
_BETWEEN = re.compile(rf"{STAMP} \| [a-z]+ *\| .*|{_INFO}{_SOURCE} - Please note that 'stop_at_eos' is disabled\..*")
_NEXT = rf"{STAMP} \| |Fatal Python error: "
_NEXT_MERGED = rf"{_NEXT}|(?:PASSED|FAILED|ERROR)\b|=+ .+ =+\n|-+ Captured .+ -+\n"


def read_tail(
    prompts: Sequence[str], text: str, sources: Mapping[str, str], ended: bool, merged: bool
) -> Iterator[str]:
    """The demo's messages from the end of decoding on.

    Args:
        text: the log from there on; bytes that are no UTF-8 as lone surrogates.
        sources: message -> the source line that it came from, for the messages before.
        ended: nothing is missing at the end of the text.
        merged: pytest's report is in it too.
    """
    text, another_test = _until_again(text, "Reading inputs...", sources)
    first_batch, another_batch = _until_again(text, "Processing batch 0", sources)
    last: int | None = None
    for header, begin, end in _blocks(prompts, first_batch, ended or another_batch or another_test, merged):
        last = end
        if end is not None:
            yield header + text[begin:end].strip() + "\n"
    yield from _messages(text, max((match.start() for match in _METRICS.finditer(text)), default=last))


def _messages(text: str, begin: int | None) -> Iterator[str]:
    """The demo's messages of one line from there on."""
    for line in text[begin:].split("\n")[:-1] if begin is not None else ():
        match = PLAIN_RECORD.search(line.encode("utf-8", "replace"))
        if match and (record := plain_record(match)).is_demo:
            yield record.message


def _until_again(text: str, first: str, sources: Mapping[str, str]) -> tuple[str, bool]:
    """The part before a second test or batch begins, and whether one does.

    It begins with a line that is known from the first one, so it must come from the same source line.
    """
    if first not in sources:
        return text, False
    match = re.search(rf"{_INFO}{re.escape(sources[first])} - {re.escape(FIRST_LINES[first])}\n", text)
    # From the start of the line: something else may be glued before it.
    return (text[: text.rfind("\n", 0, match.start()) + 1], True) if match else (text, False)


def _blocks(prompts: Sequence[str], text: str, ended: bool, merged: bool) -> Iterator[tuple[str, int, int | None]]:
    """Header, begin and end of the answers of users 0, 1, ...; the end is None where the text does not show it."""
    headers = [answer_header(user, prompt) for user, prompt in enumerate(prompts)]
    found = _find_header(headers[0], text, 0, _SOURCE) if headers else None
    for user, header in enumerate(headers):
        if not found:
            return
        begin = found.end()
        is_last = user == len(headers) - 1
        found = None if is_last else _find_header(headers[user + 1], text, begin, re.escape(found[1]))
        if found:
            end = _end_before(text, begin, found.start())
        else:
            end = _last_end(text, begin, ended, merged, metrics_follow=is_last)
        yield header, begin, end


def _find_header(header: str, text: str, begin: int, source: str) -> re.Match[str] | None:
    # loguru writes to stderr, which prints a lone surrogate as an escape.
    shown = header.encode("utf-8", "backslashreplace").decode()
    return re.compile(rf"{_INFO}({source}) - {re.escape(shown)}").search(text, begin)


def _end_before(text: str, begin: int, position: int) -> int | None:
    """Where the answer from begin on ends, given that the demo's next line is at this position."""
    position = max(begin, text.rfind("\n", begin, position) + 1)  # a C++ line may be glued before it
    while True:
        before = text.rfind("\n", begin, position - 1) + 1 or begin
        if before >= position or not _BETWEEN.fullmatch(text, before, position - 1):
            break
        position = before
    return _checked(text, begin, position - 2) if text.endswith("\n\n", begin, position) else None


def _last_end(text: str, begin: int, ended: bool, merged: bool, metrics_follow: bool) -> int | None:
    """Where the last answer ends: before the metrics or else before whatever else is known to come next."""
    metrics = list(_METRICS.finditer(text, begin))
    if metrics and not metrics_follow:
        return None  # the next user's header is damaged, and the answer might go on behind it
    if metrics:
        return _end_before(text, begin, metrics[-1].start())
    following = re.compile(rf"\n\n(?={_NEXT_MERGED if merged else _NEXT})").search(text, begin)
    if following:
        return _checked(text, begin, following.start())
    return _checked(text, begin, len(text) - 2) if ended and text.endswith("\n\n", begin) else None


def _checked(text: str, begin: int, end: int) -> int | None:
    """The end, unless the answer would hold bytes that are no UTF-8."""
    return None if any("\ud800" <= character <= "\udfff" for character in text[begin:end]) else end
