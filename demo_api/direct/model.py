"""The interface of a model in memory, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from demo_api.errors import BadRequest
from demo_api.messages import Question

MAX_SEQ_LEN = 2048
"""Tokens that a prompt and its answer have together at most, where the setting says nothing."""


@dataclass(frozen=True)
class Completion:
    """A model's answer, with its own counts. Seconds of wall time; None is "not known".

    Attributes:
        response: the text, stripped as the demo strips it; raw text is not stripped.
        tokens_generated: the end-of-sequence token not counted.
        prompt_tokens: of the prompt with its template.
        finish_reason: ``stop`` (the model ended its answer), ``length`` (it reached ``max_tokens`` or the end of its
            context), or ``cancelled`` (``OnText`` did).
        ttft_ms: milliseconds from the model's start on this question to the first token of the answer.
        prefill_seconds: reading the prompt.
        decode_seconds: first token to last.
        decode_tokens_per_second: of this answer alone, the first token not counted.
    """

    response: str
    tokens_generated: int
    prompt_tokens: int | None
    finish_reason: str
    ttft_ms: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    decode_tokens_per_second: float | None = None


def context_for(wanted: int | None, longest: int | None) -> int:
    """Tokens that a prompt and its answer have together at most.

    Args:
        wanted: ``DEMO_API_MAX_SEQ_LEN``.
        longest: what the model was made for; None where that is not known.

    Raises:
        BadRequest: more is wanted than the model was made for.
    """
    if wanted is None:
        return min(MAX_SEQ_LEN, longest or MAX_SEQ_LEN)
    if longest is not None and wanted > longest:
        raise BadRequest(
            f"DEMO_API_MAX_SEQ_LEN or --max-seq-len is {wanted}, and the model was made for {longest} tokens.",
            next_step=f"Set it to {longest} or less, or leave it out.",
        )
    return wanted


def check_fits(prompt_tokens: int, context: int) -> None:
    """Raises BadRequest for a prompt that leaves no room for an answer in the model's context."""
    if prompt_tokens >= context:
        raise BadRequest(
            f"The prompt is too long: it has {prompt_tokens} tokens, and the model takes {context}, the answer's "
            "included.",
            next_step="Send a shorter prompt.",
            field="prompt",
        )


OnText = Callable[[str, int], bool]
"""Called with what the latest token adds to the text, and how many tokens the answer has by now: 0 while the prompt is
read. True ends the answer there, within one token."""


class Model(Protocol):
    """A model that is loaded once and answers many questions.

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

    def load(self) -> None:
        """Loads it, once, in the thread that calls ``close`` too.

        Raises:
            SetupError: it cannot be loaded; what was opened is closed.
        """

    def accept(self, question: Question) -> None:
        """Says whether it can answer a question; called after ``load``, from any thread, also while it answers others.

        Raises:
            BadRequest: it cannot, or the prompt does not fit.
            RunFailed: the engine failed.
        """

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers an accepted question; called from up to ``slots`` threads at once, joined before ``close``.

        Raises:
            RunFailed: the engine failed.
        """

    def close(self) -> None:
        """Frees the model and closes the device, whatever ``load`` came to."""
