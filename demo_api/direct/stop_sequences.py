"""Ends a text before the first of its stop sequences, while the text still comes."""

from __future__ import annotations

from collections.abc import Sequence


class StopSequences:
    """Finds what may be said of a text that comes in pieces: all that stands before a stop sequence.

    What is said does not depend on where the pieces end. The sequence that is complete first counts, and of those that
    end at the same place the longest.

    Args:
        sequences: none of them empty; without any, everything is said at once.

    Attributes:
        said: all that ``add`` and ``rest`` have returned.
        found: whether a sequence came; nothing is said after it.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self.said = ""
        self.found = False
        self._sequences = sequences
        self._held = ""

    def add(self, piece: str) -> str:
        """What may be said now; an end that may become a stop sequence is held back."""
        if self.found:
            return ""
        text = self._held + piece
        complete = [(at + len(each), at) for each in self._sequences if (at := text.find(each)) >= 0]
        self.found = bool(complete)
        cut = min(complete)[1] if complete else len(text) - self._held_length(text)
        self._held = "" if self.found else text[cut:]
        return self._say(text[:cut])

    def rest(self) -> str:
        """What was held back, when no more comes."""
        held, self._held = self._held, ""
        return self._say(held)

    def _held_length(self, text: str) -> int:
        """How many characters at the end of the text a stop sequence begins with."""
        longest = max((len(each) - 1 for each in self._sequences), default=0)
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(each.startswith(text[-n:]) for each in self._sequences)), 0)

    def _say(self, text: str) -> str:
        self.said += text
        return text
