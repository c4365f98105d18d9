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
        subject: the check's name in ``--json`` and in docs/doctor.md.
        sentence: what was seen.
        next_step: what to do about it; empty where nothing is to be done.
    """

    level: Level
    subject: str
    sentence: str
    next_step: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as ``--json`` tells it."""
        return {"check": self.subject, "level": self.level, "told": self.sentence, "next_step": self.next_step}


def ok(subject: str, sentence: str) -> Finding:
    """Nothing is to be done."""
    return Finding("ok", subject, sentence)


def warning(subject: str, sentence: str, next_step: str) -> Finding:
    """The demo can be run, but this is worth a look."""
    return Finding("warning", subject, sentence, next_step)


def error(subject: str, sentence: str, next_step: str) -> Finding:
    """The demo cannot be run, or not as it is set."""
    return Finding("error", subject, sentence, next_step)
