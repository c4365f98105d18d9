"""How many tokens each user of a batch got, counted from what the demo logs while it decodes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# A stop token that comes first of all is not taken for one: the demo prints it and goes on to the next.
_STOP_TOKENS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "</s>")
_ONE_TOKEN = re.compile(r"<\|\w{1,60}\|>|(?:(?!<\|).){0,97}")
_HALF = "\ufffd"  # how a character is shown of which only some tokens are there


def starts_with_stop_token(answer: str) -> bool:
    """Whether the text of an answer begins with what marks the end of one."""
    return answer.startswith(_STOP_TOKENS)


@dataclass
class Decoding:
    """The decode loop of one batch: how many tokens each user got, as far as the log shows it."""

    iterations: int = 0
    complete: bool = True  # every iteration from 0 on was seen
    stops: dict[int, int] = field(default_factory=dict)  # user -> the iteration in which the stop token came
    first_tails: dict[int, str] = field(default_factory=dict)  # user -> the end of the text after two tokens
    tails: dict[int, str] = field(default_factory=dict)  # user -> the end of the text, as last shown
    unchanged: set[int] = field(default_factory=set)  # users to whose text the last iteration added nothing

    def iterate(self, number: int) -> None:
        """Counts one more iteration."""
        self.complete = self.complete and number == self.iterations
        self.iterations += 1

    def stop(self, user: int, iteration: int) -> None:
        """Notes that the user's stop token came in this iteration, if it is the first time."""
        self.stops.setdefault(user, iteration)

    def show(self, user: int, tail: str) -> None:
        """Takes in the end of the user's text after the last iteration."""
        self.unchanged.discard(user)
        if self.tails.get(user) == tail and not _may_hide_growth(tail):
            self.unchanged.add(user)
        self.tails[user] = tail
        if self.iterations == 1:
            self.first_tails[user] = tail

    def tokens(self, user: int, stops_are_shown: bool) -> int | None:
        """How many tokens the user got; the first comes from the prefill, so N iterations without a stop make N+1."""
        if not self.complete or not self.iterations:
            return None
        if user in self.stops:
            return self.stops[user] + 1
        return self.iterations + 1 if stops_are_shown else None

    def ended_first(self, user: int, answer: str) -> bool:
        """Whether the user's first token was a stop token, so that the answer is empty whatever the demo printed.

        After the first iteration the text has two tokens. Spelled out of others a stop token takes more than two, so
        where the text ends with a whole one and at most one token behind it, it was the first.
        """
        stop = next((token for token in _STOP_TOKENS if answer.startswith(token)), None)
        _, found, behind = self.first_tails.get(user, "").rstrip(_HALF).rpartition(stop or _HALF)
        if not found or not self.complete or not _ONE_TOKEN.fullmatch(behind):
            return False
        return answer.replace("\n", " ").startswith((found + behind).rstrip())


def _may_hide_growth(tail: str) -> bool:
    """Whether one more token may leave this tail (``...`` and 97 characters) as it is: a loop, or half a character."""
    last = tail[3:]
    return tail.endswith(_HALF) or (len(last) == 97 and any(last[n:] == last[:-n] for n in range(1, 34)))
