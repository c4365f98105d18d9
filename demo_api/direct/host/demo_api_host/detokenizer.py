"""Turns tokens into text as they come, never into half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"
"""What every tokenizer decodes the first bytes of a character to, until the others are there."""


class Detokenizer:
    """Finds what each token adds to the text of an answer.

    The whole answer is decoded for every token: what a token is worth can depend on those before it. For 2048 tokens
    that is about a millisecond a token at worst, of the ten or more that a token takes.

    Args:
        decode: tokens to text, such that more tokens never change the text of the earlier ones.
        before: the tokens before the answer, for tokenizers that drop the space before the first word.

    Attributes:
        text: all that was returned.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int] = ()) -> None:
        self.text = ""
        self._decode = decode
        self._tokens = list(before)
        self._before = len(decode(self._tokens).rstrip(_INCOMPLETE)) if before else 0

    def add(self, token: int) -> str:
        """What this token adds; empty while a character lacks bytes."""
        self._tokens.append(token)
        return self._added(self._decode(self._tokens).rstrip(_INCOMPLETE))

    def rest(self) -> str:
        """What was kept back, when no more tokens come: then it is no character, and U+FFFD stands for it."""
        return self._added(self._decode(self._tokens))

    def _added(self, decoded: str) -> str:
        new = decoded[self._before + len(self.text) :]
        self.text += new
        return new
