"""How many tokens a prompt and its answer may have together."""

from __future__ import annotations

from .protocol import Refused

MAX_SEQ_LEN = 2048
"""Tokens that a prompt and its answer have together at most, where the setting says nothing."""


def context_for(wanted: int | None, longest: int | None) -> int:
    """Tokens that a prompt and its answer have together at most.

    Args:
        wanted: ``DEMO_API_MAX_SEQ_LEN``.
        longest: what the model was made for; None where that is not known.

    Raises:
        Refused: more is wanted than the model was made for.
    """
    if wanted is None:
        return min(MAX_SEQ_LEN, longest or MAX_SEQ_LEN)
    if longest is not None and wanted > longest:
        raise Refused(
            "DEMO_API_MAX_SEQ_LEN or --max-seq-len is %d, and the model was made for %d tokens." % (wanted, longest),
            "Set it to %d or less, or leave it out." % longest,
        )
    return wanted


def check_fits(prompt_tokens: int, context: int) -> None:
    """Raises Refused for a prompt that leaves no room for an answer in the model's context."""
    if prompt_tokens >= context:
        raise Refused(
            f"The prompt is too long: it has {prompt_tokens} tokens, and the model takes {context}, the answer's "
            "included.",
            "Send a shorter prompt.",
            field="prompt",
        )
