"""The worst that a child could print: for each state of the transcript's reader, what costs it most.

Run by itself it feeds one of them to a reader, and prints what that took as one JSON object:
``python -m support.worst_output NAME MEGABYTES``
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from demo_api.transcript import Reader

CHUNK = 2**16  # as a child's output is read
PROMPTS = [f"prompt {user}" for user in range(32)]
DEMO = "models.tt_transformers.demo.simple_text_demo"
HEAD = f"2026-11-22 02:14:40.449 | INFO     | {DEMO}:test_demo_text:752 - ".encode()
OTHER_HEAD = b"2026-11-22 02:14:40.449 | INFO     | other:load:1 - "
LONG = 2**22 - 100  # a little less than the longest line that is kept


class Worst(NamedTuple):
    """What a child prints on a stream: a beginning, which brings the reader into a state, and one thing ever after."""

    stream: str
    begin: bytes
    again: bytes | Callable[[int], bytes]

    def pieces(self, size: int) -> Iterator[bytes]:
        """So many bytes of it, in chunks."""
        yield self.begin
        numbers, left, waiting = count(), size, b""
        while left > 0:
            while len(waiting) < CHUNK:
                waiting += self.again if isinstance(self.again, bytes) else self.again(next(numbers))
            for at in range(0, len(waiting) - CHUNK + 1, CHUNK):
                yield waiting[at : at + CHUNK]
                left -= CHUNK
            waiting = waiting[len(waiting) // CHUNK * CHUNK :]


def record(message: str, level: str = "INFO", name: str = DEMO, function: str = "test_demo_text") -> bytes:
    """A serialised record as loguru writes it, as far as it is read."""
    inner = {"name": name, "function": function, "message": message, "level": {"name": level}}
    whole = {"text": "2026\n", "record": {**inner, "process": {"id": 1}, "time": {"timestamp": 1.5}}}
    return json.dumps(whole).encode() + b"\n"


def filled(begin: bytes, unit: bytes, size: int, end: bytes = b"") -> bytes:
    """One line of about so many bytes."""
    return begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end + b"\n"


FAILURES = b"==== FAILURES ====\n____ x ____\n"
CAPTURED = FAILURES + b"---- Captured stderr call ----\n"
SUMMARY = b"==== short test summary info ====\n"
LINES_OF_A_REPORT: dict[str, bytes | Callable[[int], bytes]] = {
    "skips inside of a line": filled(b"", b":", 1000)[:-1] + b" SKIPPED (" * 295 + b"\n",
    "skips with their ends": b"a::b SKIPPED (" + b")  [" * 900 + b"\n",
    "equals signs": filled(b"= a", b" =", 3999, b"x"),
    "equals signs in runs": filled(b"= a", b" =======", 3999, b"x"),
    "underscores": filled(b"_ a", b" _", 3999, b"x"),
    "captures": filled(b"- Captured a", b" -", 3999, b"x"),
    "banners": filled(b"! a", b" !", 3999, b"x"),
    "pluses": filled(b"+", b"+", 3999, b"x"),
    "counts": filled(b"1 a", b", 1 a", 399, b"x"),
    "counts without commas": filled(b"= 1 a", b" 1 a", 399, b"in"),
    "colours": filled(b"\x1b[", b"1;", 15999, b"x"),
    "many colours": filled(b"E ", b"\x1b[1", 15999),
    "usage": filled(b"a", b".a", 3990, b": error: "),
    "skipped at a place": filled(b"SKIPPED [1] a", b":1", 3990),
    "failed": filled(b"FAILED a", b" -", 3990),
    "exceptions": filled(b"a:", b"Error", 3990, b"("),
    "missing modules": filled(b": No module named", b": No module named", 3990),
    "groups": filled(b"  | a", b".a", 3990),
    "reasons": b"E x\n",
    "long reasons": filled(b"E ", b"x ", 3990),
    "sections": lambda number: b"= %d =\nE x\n" % number,
    "long sections": lambda number: filled(b"= %d" % number, b"x", 3990, b" =") + b"E x\n",
    "failed tests": b"_ x _\nE x\n",
    "verdicts": b"= 1 passed in 0.1s =\n",
    "internal errors": b"INTERNALERROR> x\n",
    "bytes that are no text": b"E " + b"\xff" * 3990 + b"\n",
}
STARTED = record("Reading inputs...") + record("Processing batch 0")
DECODING = STARTED + record("Starting decode loop...")
SERIALISED: dict[str, bytes | Callable[[int], bytes]] = {
    "beginnings of records": filled(b"", b'{"text": "', LONG),
    "beginnings of records, each a string": filled(b"", b'{"text": "2026", ', LONG),
    "empty objects": filled(b'{"text": "2026", "simple_text_demo": [', b"{},", LONG),
    "numbers": filled(b'{"text": "2026", "simple_text_demo": [', b"1,", LONG),
    "one number": filled(b'{"text": "2026", "simple_text_demo": ', b"9", LONG),
    "short strings": filled(b'{"text": "2026", "simple_text_demo": [', b'"",', LONG),
    "keys": lambda number: (
        b'{"text": "2026", "simple_text_demo": {' + b"".join(b'"%x": 1,' % (number + n) for n in range(400_000)) + b"\n"
    ),
    "nested": filled(b'{"text": "2026", "simple_text_demo": ', b"[", LONG),
    "escapes": filled(b'{"text": "2026', b"\\u1234", LONG, b'", "simple_text_demo": 1}'),
    "short objects": filled(b'{"text": "2026", "simple_text_demo": [', b"{},", 2**16 - 100),
    "users": lambda number: record(f"[User {number % 10**9}] text {number}"),
    "stops": lambda number: record(f"[User {number % 10**9}] Finished decoding at iteration 1", level="TRACE"),
    "iterations": lambda number: record(f"Iteration {number}: 1ms @ 1.0 tok/s/user (1.0 tok/s throughput)"),
    "a long tail": record("[User 0] " + "x" * 2_000_000),
    "answers": lambda number: record(
        f"\n==REPEAT BATCH 0\n==USER {number % 32} - PROMPT\n{PROMPTS[number % 32]} \n==USER {number % 32} - OUTPUT\n"
        + "\U0001f600" * 160_000
        + "\n"
    ),
    "errors": record("x" * 2_000_000, level="ERROR", name="other"),
    "prompt lengths": record(
        "Encoded prompt lengths:" + ", ".join(["123456789"] * 9_999),
        name="models.tt_transformers.tt.common",
        function="preprocess_inputs_prefill",
    ),
    "models": record("Model " + "x" * 199 + " does not have " + "a " * 3000),
}
PLAIN: dict[str, bytes | Callable[[int], bytes]] = {
    "digits": filled(b" | ", b"1", LONG),
    "bars": filled(b"", b" | ", LONG),
    "stamps": filled(b"", b"2026-11-22 02:14:40.449 | ", LONG),
    "levels": filled(b"", b"2026-11-22 02:14:40.449 | INFO     | ", LONG),
    "a long source": filled(b"2026-11-22 02:14:40.449 | INFO | a:", b"b ", LONG),
    "a long module": filled(b"2026-11-22 02:14:40.449 | INFO | ", b"a.", LONG),
    "records": OTHER_HEAD + b"x\n",
    "short records": HEAD + b"x\n",
    "users": lambda number: HEAD + b"[User %d] text\n" % (number % 10**9),
}
ANSWER = HEAD + b"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\nprompt 0 \n==USER 0 - OUTPUT\n"
IN_ANSWERS: dict[str, bytes | Callable[[int], bytes]] = {
    "newlines": b"\n",
    "short lines": b"ab\n",
    "astral characters": "\U0001f600".encode() * 1000 + b"\n",
    "bytes that are no text": b"\xff" * 999 + b"\n",
    "headers": ANSWER + b"x\n\n",
    "messages without a head": b" - \n==REPEAT BATCH 0\n==USER 1 - PROMPT\nprompt 1 \n==USER 1 - OUTPUT\n",
    "metrics": HEAD + b"\n" + HEAD + b"=== Performance metrics ===\n",
    "metrics without a head": b" - \n - === Performance metrics ===\n",
    "figures": HEAD + b"=== Performance metrics ===\n" + HEAD + b"Prefill compile time: 1.0s\n",
    "lines of C++": b"2026-11-22 02:14:40.449 | info     |    UMD | x\n",
    "second batches": HEAD + b"Processing batch 1\n",
    "reports": b"\n\n" + filled(b"= a", b" =", 400, b"x") + filled(b"- Captured a", b" -", 400, b"x"),
    "digits": b"1" * 1000 + b"\n",
}


def _states() -> Iterator[tuple[str, Worst]]:
    for state, stream, begin, all_lines in (
        ("report", "stdout", b"", LINES_OF_A_REPORT),
        ("failures", "stdout", FAILURES, LINES_OF_A_REPORT),
        ("captured", "stdout", CAPTURED, LINES_OF_A_REPORT),
        ("summary", "stdout", SUMMARY, LINES_OF_A_REPORT),
        ("no record yet", "stderr", b"", SERIALISED | PLAIN),
        ("serialised, loading", "stderr", STARTED, SERIALISED),
        ("serialised, decoding", "stderr", DECODING, SERIALISED),
        ("plain, loading", "stderr", HEAD + b"Reading inputs...\n", PLAIN),
        ("plain, an answer", "stderr", HEAD + b"Processing batch 0\n" + ANSWER, IN_ANSWERS),
        ("plain, an answer, merged", "stdout", HEAD + b"Processing batch 0\n" + ANSWER, IN_ANSWERS),
    ):
        for name, line in all_lines.items():
            yield f"{state}: {name}", Worst(stream, begin, line)
    yield "report: newlines", Worst("stdout", FAILURES, b"\n")
    yield "serialised: newlines", Worst("stderr", STARTED, b"\n")
    yield "a line without an end", Worst("stderr", b"", b"x" * CHUNK)


WORST = dict(_states())


class _Hold:
    """Measures for how long a second thread does not come to run."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.001):
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self.longest


def main(name: str, megabytes: float) -> None:
    reader = Reader(PROMPTS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hold, seconds = _Hold(), time.process_time()
    for piece in WORST[name].pieces(int(megabytes * 2**20)):
        reader.feed(WORST[name].stream, piece)
    reader.finish(0)
    seconds = time.process_time() - seconds
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"seconds": round(seconds, 2), "megabytes": round(grown), "hold": round(hold.stop(), 2)}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
