"""How the child ended, from what pytest, Python and the C++ runtime print on one stream.

The formats are those of pytest 7 to 9. Only the lines that matter are kept, a bounded number of them.
"""

from __future__ import annotations

import re

_ANSI = re.compile(rb"\x1b\[[0-9;:?]*[ -/]*[@-~]")
# A line that begins otherwise is not looked at: this loop sees every line of every transcript.
_BEGINNINGS = (
    *(b"E ", b"=", b"_", b"--", b"!", b"++", b"FAILED ", b"ERROR", b"SKIPPED [", b"INTERNALERROR> "),
    *(b"  | ", b"    | ", b"Fatal Python error: ", b"  what():  ", b"no tests ran in "),
    *(b"%d" % digit for digit in range(1, 10)),
)
_FIRST_BYTES = frozenset(word[:1] for word in _BEGINNINGS)
_LONGEST = 4000  # characters of one line that are kept
_MOST = 60  # lines of one reason

_WITH_REASONS = ("FAILURES", "ERRORS", "")  # sections, the most telling first; "" is what comes before the first one

_HEADER = re.compile(r"=+ (.+?) =+")
_ITEM = re.compile(r"_+ [^_ ].* _+")  # a long name leaves room for one underscore only
_CAPTURED = re.compile(r"-+ Captured .+ -+")
_BANNER = re.compile(r"!+ (.+?) !+")
_TIMEOUT = re.compile(r"\++ Timeout \++")
_VERDICT = re.compile(r"(?:=+ )?((?:\d+ [a-z ]+(?:, )?)+|no tests ran) in \d+\.\d+s?(?: \(.{1,40}\))?(?: =+)?")
_COUNT = re.compile(r"(\d{1,9}) ([a-z]+(?: [a-z]+)*)")
_REASON = re.compile(r"(?:FAILED|ERROR) .+? - (.+)")
_SKIPPED = re.compile(r"SKIPPED \[\d+\] (?:.+?:\d+: )?(.+)")
_SKIPPED_INLINE = re.compile(r"(.+)\)(?: +\[ *\d+%\])?")  # from behind "SKIPPED ("
_USAGE = re.compile(r"[\w.-]+: error: (.+)")
_GROUPED = re.compile(r" {2,40}\| ([A-Za-z_][\w.]*: .+)")
_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit)|.{0,200}: No module named .+)(?:: .+)?")


class Report:
    """What is known of the end, line by line.

    Attributes:
        counts: of pytest's last line, such as ``{"passed": 1, "warnings": 4}``; None if there was none.
        banner: the last line between exclamation marks, such as ``KeyboardInterrupt``.
        skipped: why the first skipped test was skipped.
        internal_error: what broke pytest itself.
        usage_error: why pytest refused its command line.
        fatal: the first line of Python's faulthandler.
        uncaught: what C++ printed of an exception that nobody caught.
        timed_out: whether pytest-timeout ended the process.
        exception: the last line that looks like the end of a traceback.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] | None = None
        self.banner: str | None = None
        self.skipped: str | None = None
        self.internal_error: str | None = None
        self.usage_error: str | None = None
        self.fatal: str | None = None
        self.uncaught: str | None = None
        self.timed_out = False
        self.exception: str | None = None
        self._section = ""
        self._items = 0  # failed tests seen in this section
        self._in_captured = False  # inside a test's captured output
        self._blocks: dict[str, list[str]] = {}  # section -> the last lines that stood together with an "E"
        self._grouped: list[str] = []
        self._in_block = False
        self._reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether tests passed, and no other outcome was worse."""
        counts = self.counts or {}
        return counts.get("passed", 0) > 0 and not any(name in counts for name in ("failed", "error", "errors"))

    def cause(self) -> list[str]:
        """The lines of the reason of the first failure, the first line first; empty if there is none."""
        for section in _WITH_REASONS:
            if self._blocks.get(section):
                return self._blocks[section]
        return self._grouped or ([self._reason] if self._reason else [])

    def feed(self, line: bytes) -> None:
        """Takes in the next line, without its newline."""
        if not line:  # quickly: a child can print fifty million of them in a minute
            self._in_block = False
            return
        if line.startswith(b"\x1b"):
            line = _ANSI.sub(b"", line[: 4 * _LONGEST])
        if line[:1] in _FIRST_BYTES and line.startswith(_BEGINNINGS):
            self._read(_ANSI.sub(b"", line[: 4 * _LONGEST]).decode("utf-8", "replace")[:_LONGEST].rstrip())
            return
        self._in_block = False
        if b":" in line:
            self._look_inside(line)

    def _look_inside(self, line: bytes) -> None:
        if b"SKIPPED (" in line:
            text = _ANSI.sub(b"", line[:_LONGEST]).decode("utf-8", "replace").rstrip()
            test, _, reason = text.partition(" SKIPPED (")
            match = _SKIPPED_INLINE.fullmatch(reason) if "::" in test else None
            self.skipped = match[1] if match else self.skipped
        elif b": error: " in line[:80]:
            match = _USAGE.fullmatch(line[:_LONGEST].decode("utf-8", "replace").rstrip())
            self.usage_error = match[1] if match else self.usage_error
        elif b"Error" in line or b"Exception" in line or b": No module named " in line:
            text = line[:_LONGEST].decode("utf-8", "replace").rstrip()
            self.exception = text if _EXCEPTION.fullmatch(text) else self.exception

    def _read(self, line: str) -> None:
        if line.startswith("E "):
            self._read_reason(line[1:])
            return
        self._in_block = False
        if line.startswith("="):
            self._read_header(line)
        elif _ITEM.fullmatch(line):
            self._items += 1
            self._in_captured = False
        elif line.startswith("-"):
            self._in_captured = self._in_captured or _CAPTURED.fullmatch(line) is not None
        elif line.startswith("INTERNALERROR> "):
            self._read_internal(line[len("INTERNALERROR> ") :])
        else:
            self._read_end(line)

    def _read_header(self, line: str) -> None:
        match = _HEADER.fullmatch(line)
        if not match:
            return
        self._read_counts(line)
        # A section that comes a second time was printed by a test: like a second failed test it does not count.
        self._section, self._items, self._in_captured = match[1], 2 * (match[1] in self._blocks), False
        if self._section == "short test summary info":
            # The last such section is pytest's own; one before it was printed by a test.
            self._reason, self.skipped = None, None

    def _read_counts(self, line: str) -> None:
        match = _VERDICT.fullmatch(line) if len(line) < 400 else None
        if match:
            self.counts = {name: int(count) for count, name in _COUNT.findall(match[1])}

    def _read_reason(self, text: str) -> None:
        if self._in_captured or self._items > 1 or self._section not in _WITH_REASONS:
            return
        if not self._in_block:
            self._blocks[self._section] = []
            self._in_block = True
        block = self._blocks[self._section]
        if len(block) < _MOST:
            block.append(text.strip())

    def _read_internal(self, text: str) -> None:
        if text and not text.startswith((" ", "Traceback ")):
            self.internal_error = text

    def _read_end(self, line: str) -> None:
        grouped, banner = _GROUPED.fullmatch(line), _BANNER.fullmatch(line)
        if grouped:
            if not self._in_captured and self._items <= 1 and len(self._grouped) < _MOST:
                self._grouped.append(grouped[1])
        elif line.startswith(("FAILED ", "ERROR ")):
            match = _REASON.fullmatch(line)
            self._reason = self._reason or (match[1] if match else None)
        elif line.startswith("ERROR: "):
            self.usage_error = line[len("ERROR: ") :]
        elif line.startswith("SKIPPED "):
            match = _SKIPPED.fullmatch(line)
            self.skipped = self.skipped or (match[1] if match else None)
        elif line.startswith("Fatal Python error: "):
            self.fatal = line
        elif line.startswith("  what():  "):
            self.uncaught = line[len("  what():  ") :]
        elif banner:
            self.banner = banner[1]
        elif _TIMEOUT.fullmatch(line):
            self.timed_out = True
        elif _USAGE.fullmatch(line):  # of __main__.py
            self.usage_error = line.partition(": error: ")[2]
        else:
            self._read_counts(line)  # without the equals signs, as with -q
