"""What the messages of the demo's own logger say of a run: phases, iterations, answers, figures.

The wording is that of ``models/tt_transformers/demo/simple_text_demo.py`` in tt-metal, July 2025 and after November
2025. Every message is matched whole or by its exact beginning, because the same words occur inside answers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from demo_api.messages import PHASES, Answer, Event, Metrics
from demo_api.transcript.decoding import Decoding, starts_with_stop_token

DECODING_OVER = "Finished decoding, printing the final outputs..."
# 2,048 tokens of at most 128 characters each; what is longer was not decoded by the demo.
_LONGEST_ANSWER = 2048 * 128
_LONGEST_TAIL = 200  # characters of a message that shows the end of a user's text; the demo's have about 110
_FIRST_BATCH = "Processing batch 0"
ANSWER_MARK = "\n==REPEAT BATCH 0\n"  # only in the first batch is user i's prompt the i-th prompt

_PHASES = PHASES[1:]  # the log begins with the test
_PHASE_OF_MESSAGE = {
    "Reading inputs...": "load",
    "Starting prefill warmup...": "prefill_compile",
    "Starting prefill...": "prefill",
    "Starting decode loop...": "decode_compile",
    DECODING_OVER: "output",
}
# stop_at_eos=0: end-of-sequence tokens are dropped in silence and decoding goes on, so the log has no counts.
_NO_STOPS = ("The decode generation will only stop at the max_generated_tokens limit", "Please note that 'stop_at_eos'")

_NUMBER = r"(-?\d[\d.]{0,30}(?:e[+-]?\d{1,3})?|inf|nan)"
_ITERATION = re.compile(rf"Iteration (\d{{1,9}}): {_NUMBER}ms @ {_NUMBER} tok/s/user \({_NUMBER} tok/s throughput\)")
_USER_SAID = re.compile(r"\[User (\d{1,9})\] (.*)", re.DOTALL)
_STOPPED = re.compile(r"Finished decoding at iteration (\d{1,9})")
# "prefill targets" until May 2026, then "centralized performance targets", with more behind the device; since then a
# model with targets leaves it out.
_TARGETS = re.compile(r"Model (\S{1,200}) does not have [a-z ]{1,40} set for device ([^\s,]{1,200})(?:, .{0,200})?")
_DEVICE = re.compile(r"Inferring device name: ([^\s,]{1,200})")
_PROMPT_LENGTHS = re.compile(r"Encoded prompt lengths: ?(\d{1,9}(?:, \d{1,9}){0,999})")
_CLIPPED = re.compile(r"Left-clipping prompts to (\d{1,9})")
_FIGURES = (
    (re.compile(rf"Prefill compile time: {_NUMBER}s"), ("prefill_compile_s",)),
    (re.compile(rf"Decode compile time: {_NUMBER}s"), ("decode_compile_s",)),
    (re.compile(rf"Average Time to First Token \(TTFT\): {_NUMBER}ms"), ("ttft_ms",)),
    (
        re.compile(rf"Average speed: {_NUMBER}ms @ {_NUMBER} tok/s/user \({_NUMBER} tok/s throughput\)"),
        ("decode_ms_per_token", "tokens_per_second_per_user", "tokens_per_second"),
    ),
)


@dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
        name: ``load``, ``prefill_compile``, ``prefill``, ``decode_compile``, ``decode`` or ``output``.
        at: when it began, Unix seconds on the child's clock; None where the log has no such time (plain text).
    """

    name: str
    at: float | None


def answer_header(user: int, prompt: str) -> str:
    """What the message with the answer of this user begins with: it quotes a prompt of over 200 characters in part."""
    short = prompt if len(prompt) <= 200 else f"{prompt[:100]}\n<long prompt not printed in full>\n{prompt[-100:]}"
    return f"{ANSWER_MARK}==USER {user} - PROMPT\n{short} \n==USER {user} - OUTPUT\n"


class DemoLog:
    """One run, followed message by message.

    Attributes:
        phases: those that began, in order.
        texts: user -> the answer as logged.
        damaged: whether a part of the log was lost before the end of decoding, so that nothing can be counted.
        serialised: whether the log has one JSON object a line; who asks for that also asks for TRACE records.
        waiting_at: when a child that was started ahead began to wait, Unix seconds on its clock; None if it did not.
        model: from the line that says that no targets are known for it; None if it never came.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self.phases: list[Phase] = []
        self.texts: dict[int, str] = {}
        self.damaged = False
        self.serialised = False
        self.waiting_at: float | None = None
        self.model: str | None = None
        self._device: str | None = None
        self._inferred_device: str | None = None
        self._headers = [answer_header(user, prompt) for user, prompt in enumerate(prompts)]
        self._decoding = Decoding()
        self._prompt_lengths: list[int] = []
        self._prompts_begun = False  # the first batch has begun, and its prompts are not yet encoded
        self._figures: dict[str, float | None] = {}
        self._trace_seen = False
        self._stops_unknown = False
        self._text_is_exact = False  # our plugin tells what is added

    @property
    def device(self) -> str | None:
        """As the demo's last line names it, or else as its model's configuration does; None if neither was seen."""
        return self._device or self._inferred_device

    @property
    def ended_first(self) -> frozenset[int]:
        """Users whose first token was the end of their answer, though the demo printed what it decoded after that."""
        known = () if self.damaged or self._stops_unknown else self.texts.items()
        return frozenset(user for user, text in known if self._decoding.ended_first(user, text))

    @property
    def iterations(self) -> int:
        """Decode iterations seen in the first batch."""
        return self._decoding.iterations

    @property
    def metrics(self) -> Metrics:
        """The figures as printed."""
        return Metrics(**self._figures)

    def answers(self) -> list[Answer]:
        """The answers of users 0, 1, ... up to the first whose answer is missing."""
        answers = []
        for user in range(len(self._headers)):
            if user not in self.texts:
                break
            answers.append(Answer(self.texts[user], self._tokens(user), self._prompt_tokens(user)))
        return answers

    def lose(self) -> None:
        """Notes that a part of the log was lost here. What comes after the end of decoding has nothing to count."""
        self.damaged = self.damaged or not self._is_over()

    def begin_phase(self, name: str, at: float | None) -> list[Event]:
        """Begins a phase, unless it or a later one has begun before (a second test or batch, a cut log)."""
        latest = _PHASES.index(self.phases[-1].name) if self.phases else -1
        if _PHASES.index(name) <= latest:
            return []
        self.phases.append(Phase(name, at))
        return [Event("phase", at, {"phase": name})]

    def feed(self, message: str, at: float | None, traced: bool = False) -> list[Event]:
        """Takes in the next message of the demo's logger.

        Args:
            message: the whole message.
            at: Unix seconds on the child's clock, None where unknown.
            traced: whether it is a TRACE record.

        Returns:
            the events that it tells of.
        """
        self._trace_seen = self._trace_seen or traced
        if message.startswith(ANSWER_MARK):
            self._read_answer(message)
        elif message.startswith("Iteration "):
            return self._read_iteration(message, at)
        elif message.startswith("[User "):
            return self._read_user(message, at, traced)
        elif message == _FIRST_BATCH:
            self._prompts_begun = True
        elif message.rstrip("\n") in _PHASE_OF_MESSAGE:
            return self._read_phase(_PHASE_OF_MESSAGE[message.rstrip("\n")], at)
        else:
            self._read_other(message)
        return []

    def feed_library(self, message: str) -> None:
        """Takes in the next message of what the demo calls: only what happens before the first prefill tells of it."""
        inferred = _DEVICE.fullmatch(message)
        lengths = _PROMPT_LENGTHS.fullmatch(message) if self._prompts_begun else None
        clipped = _CLIPPED.fullmatch(message) if self._prompts_begun else None
        if inferred:
            self._inferred_device = self._inferred_device or inferred[1]
        elif lengths and not self._prompt_lengths:
            self._prompt_lengths = [int(length) for length in lengths[1].split(", ")]
        elif clipped:
            self._prompt_lengths = [int(clipped[1])] * len(self._prompt_lengths)

    def read_text(self, told: str, at: float | None) -> list[Event]:
        """Takes in what our plugin tells of a user's text: ``[user, added]`` in JSON.

        Returns:
            the event that it tells of.
        """
        try:
            # In Python 3.10 reading an int of a million digits takes minutes; no user has a number so long.
            user, added = json.loads(told, parse_int=lambda digits: int(digits[:9]))
        except (ValueError, TypeError, RecursionError):
            return []
        if type(user) is not int or not isinstance(added, str) or not 0 <= user < len(self._headers):
            return []
        self._text_is_exact = True
        return [Event("text", at, {"user": user, "added": added})]

    def _read_phase(self, name: str, at: float | None) -> list[Event]:
        self._prompts_begun = False
        if name == "decode_compile" and not self._is_over():
            self._decoding = Decoding()  # an earlier test may have failed in the middle of its own
        return self.begin_phase(name, at)

    def _read_iteration(self, message: str, at: float | None) -> list[Event]:
        match = _ITERATION.fullmatch(message)
        if not match or self._is_over():
            return []
        number = int(match[1])
        self._decoding.iterate(number)
        began = self.begin_phase("decode", at) if number == 0 else []
        data: dict[str, object] = {"iteration": number, "tokens_per_second_per_user": _finite(match[3])}
        return [*began, Event("progress", at, data)]

    def _read_user(self, message: str, at: float | None, traced: bool) -> list[Event]:
        if self._is_over() or len(message) > _LONGEST_TAIL:
            return []
        match = _USER_SAID.fullmatch(message)
        user = int(match[1]) if match else len(self._headers)
        if not match or user >= len(self._headers):
            return []
        stopped = _STOPPED.fullmatch(match[2]) if traced else None
        if stopped:
            self._decoding.stop(user, int(stopped[1]))
            return []
        self._decoding.show(user, match[2])
        return [] if self._text_is_exact else [Event("text", at, {"user": user, "tail": match[2]})]

    def _read_answer(self, message: str) -> None:
        for user, header in enumerate(self._headers):
            size = len(message) - len(header) - 1
            if message.startswith(header) and message.endswith("\n") and 0 <= size <= _LONGEST_ANSWER:
                self.texts.setdefault(user, message[len(header) : -1])

    def _read_other(self, message: str) -> None:
        self._stops_unknown = self._stops_unknown or message.startswith(_NO_STOPS)
        targets = _TARGETS.fullmatch(message)
        if targets and self.model is None:
            self.model, self._device = targets[1], targets[2]
        for pattern, names in _FIGURES:
            match = pattern.fullmatch(message)
            for name, text in zip(names, match.groups(), strict=True) if match else ():
                self._figures.setdefault(name, _finite(text))

    def _is_over(self) -> bool:
        """Whether the decode loop of the first batch is over: what comes later belongs to another batch or test."""
        return bool(self.phases) and self.phases[-1].name == "output"

    def _tokens(self, user: int) -> int | None:
        """The user's count, where the log settles it."""
        decoding = self._decoding
        if self.damaged or self._stops_unknown or starts_with_stop_token(self.texts[user]):
            return None
        not_stopped = self.serialised and user not in decoding.unchanged
        return decoding.tokens(user, stops_are_shown=self._trace_seen or not_stopped)

    def _prompt_tokens(self, user: int) -> int | None:
        return self._prompt_lengths[user] if user < len(self._prompt_lengths) else None


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
