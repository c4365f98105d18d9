"""Watches the demo's test from inside, at what it logs: each user's text as it comes, and the end of those told to end.

``all_outputs`` (each user's tokens: prompt, then answer), ``user_done`` and ``tokenizer`` are local variables of
``test_demo_text`` in every version that is known. Standard library only, Python 3.8+.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import demo_api_control

_INCOMPLETE = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class Text:
    """What each token adds to one answer: never half a character, and no blanks that the answer does not keep."""

    def __init__(self) -> None:
        self._start = 0  # what a token is worth can depend on the one before
        self._shown = 0
        self._has_text = False

    def added(self, tokens: Sequence[Any], decode: Callable[[list[Any]], str]) -> str:
        """What the tokens add that have come since the last call.

        Raises:
            ValueError: they change what was shown before.
        """
        before = decode(list(tokens[self._start : self._shown])).rstrip()
        text = decode(list(tokens[self._start :]))
        if text.endswith(_INCOMPLETE) or not text.strip():
            return ""
        if not text.startswith(before):
            raise ValueError(text)
        new = text[len(before) :].rstrip()
        if not new:
            return ""
        self._start, self._shown = self._shown, len(tokens)
        new, self._has_text = (new if self._has_text else new.lstrip()), True
        return new


class DecodeWatch:
    """A sink of the demo's logger, for one run.

    Args:
        first_token_only: each user ends before the decode loop, as if the next token had been an end of sequence.

    Attributes:
        is_busy: whether the model was asked something, and has not answered all of it.
    """

    def __init__(self, first_token_only: bool) -> None:
        self.is_busy = False
        self._first_token_only = first_token_only
        self._prompt_lengths: list[int] = []
        self._texts: dict[int, Text] = {}
        self._sink: int | None = None
        with suppress(ImportError):  # the demo's own logger: where it is missing, so is the demo
            from loguru import logger

            # What is not said here would be as LOGURU_* says; catch=False lets the demo fail by the sink's error.
            self._sink = logger.add(self, level=0, filter=_is_demo, format="{message}", serialize=False, catch=False)

    def stop(self) -> None:
        """Hears nothing more."""
        if self._sink is not None:
            from loguru import logger

            with suppress(ValueError):  # the demo has removed it
                logger.remove(self._sink)
            self._sink = None

    def __call__(self, message: Any) -> None:
        said = message.record["message"]
        if said.startswith("Starting prefill"):
            self.is_busy = True
        elif said == "Starting decode loop...":
            self._begin(_frame())
        elif said.startswith("Iteration "):
            self._go_on(_frame())
        elif said.startswith("Finished decoding, printing"):
            self.is_busy = False

    def _begin(self, names: dict[str, Any]) -> None:
        outputs, done = names.get("all_outputs"), names.get("user_done")
        if self._first_token_only:
            if not isinstance(done, list):
                raise RuntimeError("this demo cannot be ended after one token: ask for max_tokens 2 or more")
            done[:] = [True] * len(done)
        if isinstance(outputs, list) and isinstance(done, list):
            # Each has its prompt and its first token.
            self._prompt_lengths = [len(output) - 1 for output in outputs]
            stops = getattr(names.get("tokenizer"), "stop_tokens", ())
            self._texts = {user: Text() for user, output in enumerate(outputs) if output[-1] not in stops}
            self._show(outputs, names.get("tokenizer"))

    def _go_on(self, names: dict[str, Any]) -> None:
        outputs, done = names.get("all_outputs"), names.get("user_done")
        if not isinstance(outputs, list) or not isinstance(done, list):
            return
        for user in demo_api_control.users_to_end():
            done[user] = True
        self._show(outputs, names.get("tokenizer"))

    def _show(self, outputs: list[Any], tokenizer: Any) -> None:
        for user in list(self._texts):
            tokens = outputs[user][self._prompt_lengths[user] :]
            decode = "".join if isinstance(tokens[0], str) else tokenizer.decode
            try:
                added = self._texts[user].added(tokens, decode)
            except Exception:  # what the server reads in the log has to do
                del self._texts[user]
                continue
            if added:
                demo_api_control.log("text " + json.dumps([user, added]))


def _is_demo(record: Any) -> bool:
    return bool(record["function"] == "test_demo_text")


def _frame() -> dict[str, Any]:
    """The local variables of the demo's test."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "test_demo_text":
        frame = frame.f_back
    return frame.f_locals if frame is not None else {}
