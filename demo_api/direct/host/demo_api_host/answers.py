"""Answers the server's questions with a loaded model, as many at a time as it can."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from .protocol import Completion, Failed, ModelError, OnText, Question, Writer

logger = logging.getLogger(__name__)

_ACCEPTING = 2
"""How many prompts are counted at the same time, so that a long one does not hold up the others."""


class Model(Protocol):
    """A model that is loaded once and answers many questions.

    Attributes:
        name: as the demo calls it.
        device: as the demo calls it, such as ``CPU`` or ``N150``.
        slots: how many questions it answers at the same time.
        context: tokens that a prompt and its answer have together at most; known after ``load``.
    """

    name: str
    device: str | None
    slots: int
    context: int

    def load(self) -> None:
        """Loads it.

        Raises:
            ModelError: it cannot be loaded; what was opened is closed.
        """

    def accept(self, question: Question) -> None:
        """Says whether it can answer a question; called from any thread, also while it answers others.

        Raises:
            Refused: it cannot, or the prompt does not fit.
            Failed: the engine failed.
        """

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers an accepted question; called from up to ``slots`` threads at once, joined before ``close``.

        Raises:
            Failed: the engine failed.
        """

    def close(self) -> bool:
        """Frees the model and closes the device, whatever ``load`` came to. Returns whether the device is closed."""


class Answers:
    """What the server has asked. ``take`` and ``close`` are for one thread, which never waits for an answer."""

    def __init__(self, model: Model, writer: Writer) -> None:
        self._model = model
        self._writer = writer
        self._wanted: set[int] = set()
        self._slots = ThreadPoolExecutor(model.slots, thread_name_prefix="slot")
        self._accepting = ThreadPoolExecutor(_ACCEPTING, thread_name_prefix="accept")

    def take(self, message: Mapping[str, Any]) -> None:
        """Takes one message."""
        if "cancel" in message:
            self._wanted.discard(message["cancel"])
        elif "accept" in message:
            self._accepting.submit(self._reply, self._accept, message["id"], Question(**message["accept"]))
        else:
            self._wanted.add(message["id"])
            self._slots.submit(self._reply, self._answer, message["id"], Question(**message["answer"]))

    def close(self) -> None:
        """Ends all answers within a token, and waits for that: llama.cpp aborts a process that leaves in a callback."""
        self._wanted.clear()
        self._accepting.shutdown()
        self._slots.shutdown()

    def _reply(self, work: Any, number: int, question: Question) -> None:
        try:
            reply = work(number, question)
        except ModelError as error:
            reply = {"error": error.as_json()}
        except Exception as error:
            logger.exception("question %d failed", number)
            reply = {"error": Failed(f"The engine failed: {type(error).__name__}: {error}.").as_json()}
        self._wanted.discard(number)
        with suppress(BrokenPipeError):
            self._writer.send({"id": number, **reply})

    def _accept(self, _number: int, question: Question) -> dict[str, Any]:
        self._model.accept(question)
        return {"accepted": True}

    def _answer(self, number: int, question: Question) -> dict[str, Any]:
        def on_text(text: str, tokens: int) -> bool:
            try:
                self._writer.send({"id": number, "text": text, "tokens": tokens})
            except BrokenPipeError:
                return True
            return number not in self._wanted

        return {"done": asdict(self._model.complete(question, on_text))}
