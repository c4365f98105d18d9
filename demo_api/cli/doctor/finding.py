"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
"""``error``: the demo cannot be run, or not as it is set. ``warning``: it can, but it is worth a look."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        sentence: what was seen.
        next_step: what to do about it; empty where nothing is to be done.
    """

    level: Level
    sentence: str
    next_step: str = ""


def ok(sentence: str) -> Finding:
    """Nothing is to be done."""
    return Finding("ok", sentence)


def warning(sentence: str, next_step: str) -> Finding:
    """The demo can be run, but this is worth a look."""
    return Finding("warning", sentence, next_step)


def error(sentence: str, next_step: str) -> Finding:
    """The demo cannot be run, or not as it is set."""
    return Finding("error", sentence, next_step)
