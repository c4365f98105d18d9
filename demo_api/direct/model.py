"""The interface of a model in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from demo_api.direct.host.demo_api_host.protocol import Completion, OnText
from demo_api.errors import RunFailed
from demo_api.messages import Question

__all__ = ["Completion", "EngineLost", "Model", "OnLost", "OnText"]

OnLost = Callable[[str], None]
"""Called, from any thread, with a sentence that says how a model was lost that had been loaded."""


class EngineLost(RunFailed):
    """The model's process ended, or hangs, with questions that it had not answered.

    Args:
        log_folder: where its output is kept.
    """

    def __init__(self, message: str, log_folder: str | None = None) -> None:
        super().__init__(message, code="engine_lost", log_folder=log_folder)


class Model(Protocol):
    """A model that is loaded and answers many questions.

    Attributes:
        name: as the demo calls it.
        device: as the demo calls it, such as ``CPU`` or ``N150``; None before ``load``.
        slots: how many questions it answers at the same time.
        context: tokens that a prompt and its answer have together at most; known after ``load``.
    """

    name: str
    device: str | None
    slots: int
    context: int

    def load(self, on_lost: OnLost) -> None:
        """Loads it; called again only after ``close``, from the same thread.

        Raises:
            DemoApiError: it cannot be loaded; what was opened is closed.
        """

    def accept(self, question: Question) -> None:
        """Says whether it can answer a question; called from any thread, also while it answers others.

        Raises:
            BadRequest: it cannot, or the prompt does not fit.
            RunFailed: the engine failed.
        """

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers an accepted question; called from up to ``slots`` threads at once.

        Raises:
            RunFailed: the engine failed, or was lost.
        """

    def stop(self) -> None:
        """Breaks off a load that goes on, and every later one. Returns at once, from any thread."""

    def hurry(self) -> None:
        """Cuts short the time that ``close`` gives it to close its device. Returns at once, from any thread."""

    def close(self) -> None:
        """Frees the model and closes the device, whatever ``load`` came to; from the thread that called that."""
