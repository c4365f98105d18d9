"""The documentation as its readers use it: tables, blocks of commands, what is shown after them, and links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_api import errors

ROOT = Path(__file__).parents[2]
_FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PATHS = {path.name: path for path in _FILES}
PAGES = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
README = PAGES["README.md"]
REFERENCE = "reference.md"
"""The page with the tables of routes, fields, commands, exit codes and settings."""

_FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_MARK = re.compile(r"# needs (.+)")


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        language: the first word after the fence; commands are ``sh``, and so is what does not say.
        shown: what the page says that the commands print: a block of ``json`` or ``text`` right after them.
    """

    page: str
    line: int
    language: str
    text: str
    shown: Block | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def needs(self) -> str | None:
        """What its first line says that it needs: ``# needs Tenstorrent hardware``."""
        found = _MARK.fullmatch(self.text.partition("\n")[0])
        return found[1] if found else None


def table(page: str, *headings: str) -> list[dict[str, str]]:
    """The rows of the page's only table with these headings."""
    found = re.findall(r"^\|.*\n(?:\|.*(?:\n|$))+", PAGES[page], re.MULTILINE)
    (rows,) = [rows for rows in map(_cells, found) if tuple(rows[0]) == headings]
    return [dict(zip(headings, row, strict=True)) for row in rows[2:]]


def code_words(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]*)`", text)


def blocks(page: str) -> list[Block]:
    """All blocks of a page."""
    text = PAGES[page]
    made: list[Block] = []
    after = 0  # where the block before ended
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        block = Block(page, line, found[1] or "sh", found[2])
        if made and block.language in ("json", "text") and not text[after : found.start()].strip():
            made[-1] = Block(**{**vars(made[-1]), "shown": block})
        made.append(block)
        after = found.end()
    return made


def links(page: str) -> Iterator[str]:
    """Where the page's links and pictures lead, but for other sites."""
    text = _FENCE.sub("", PAGES[page])
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text):
        if not re.match("https?:", target[0] or target[1]):
            yield target[0] or target[1]


def anchors(page: str) -> set[str]:
    """The places within a page that a link can name, by GitHub's rules."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shape(text: str) -> Any:
    """What must be the same in what is shown and in what comes: the keys and kinds of JSON; else each line's key."""
    try:
        return _kinds(json.loads(text))
    except ValueError:
        return [_key(line) for line in text.splitlines() if line.strip() not in ("", "...")]


def differs(shown: str, real: str) -> str:
    """How what comes is not of the shape of what is shown; empty if it is. Lines may be left out of what is shown."""
    expected, found = shape(shown), shape(real)
    if isinstance(expected, list) and isinstance(found, list):
        rest = iter(found)
        missing = next((key for key in expected if key not in rest), None)
        return f"{missing!r} is shown, and not in {found}" if missing is not None else ""
    return "" if _fits(expected, found) else f"{expected} is shown, and {found} comes"


def _cells(rows: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in row.strip().removeprefix("|").removesuffix("|").split("|")]
        for row in rows.splitlines()
    ]


def _key(line: str) -> str:
    if line.startswith(("event: ", "HTTP/")):
        return line.strip()
    found = re.match(r"(: |[A-Za-z-]+: )", line)
    return found[1] if found else "(text)"


def _kinds(value: object) -> Any:
    if isinstance(value, dict):
        return {name: _kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return ("list", _kinds(value[0]) if value else None)
    return {str: "text", bool: "truth", type(None): None}.get(type(value), "number")


def _fits(expected: Any, found: Any) -> bool:
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(expected) == list(found) and all(_fits(expected[name], found[name]) for name in expected)
    if isinstance(expected, tuple) and isinstance(found, tuple):
        return _fits(expected[1], found[1])
    return expected == found or None in (expected, found)


def error_family(error: type[errors.DemoApiError]) -> list[type[errors.DemoApiError]]:
    return [error, *(heir for each in error.__subclasses__() for heir in error_family(each))]
