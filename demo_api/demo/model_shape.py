"""What a model is loaded for, and which model a batch goes to where one is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from demo_api.messages import Request, Run

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""The batch sizes that the demo knows."""

PAGE_CACHE_TOKENS = 32_768
"""Tokens that the page cache of ``performance-batch-1`` holds for all users together: 1024 blocks of 32."""

TEMPLATE_TOKENS = 256
"""More than the chat templates of the Llama family add to a prompt."""


@dataclass(frozen=True)
class ModelShape:
    """What the demo loads its model for.

    Attributes:
        batch_size: users, one of ``BATCH_SIZES``.
        max_seq_len: the longest prompt with its answer, in tokens.
    """

    batch_size: int
    max_seq_len: int


@dataclass(frozen=True)
class KeptModel:
    """The model that a child keeps on its device.

    Attributes:
        load_seconds: how long it took to load.
        run_seconds: how long the latest batch took with it.
    """

    shape: ModelShape
    load_seconds: float
    run_seconds: float


def shape_of(requests: Sequence[Request], context_length: int | None, kept: KeptModel | None = None) -> ModelShape:
    """What the demo is to load its model for, so that these requests surely fit; the kept one's shape if they fit it.

    Sequence lengths are rounded up, so that ordinary requests share one model, and few different programs are compiled.
    A model that is loaded in place of a kept one is made for at least what that was made for: otherwise two kinds of
    requests that alternate would load it each time.

    Args:
        context_length: the model's, in tokens; None where it is not known.
    """
    size, tokens = batch_size(len(requests)), max(map(most_tokens, requests))
    if kept is not None:
        size = max(size, kept.shape.batch_size)
        wanted = max(_rounded_up(tokens, size), kept.shape.max_seq_len)
        if wanted > sequence_limit(context_length, size):
            size, wanted = batch_size(len(requests)), _rounded_up(tokens, batch_size(len(requests)))
    else:
        wanted = _rounded_up(tokens, size)
    # A bound over the limit may still fit, so the demo itself is left to count.
    return ModelShape(size, min(wanted, sequence_limit(context_length, size)))


def choose(runs: Sequence[Run], context_length: int | None, kept: KeptModel | None = None) -> list[Run]:
    """Which of these runs, oldest first and alike in all but their prompts, one child can take.

    Each must surely fit into the page cache, so that nobody's long prompt fails the others' answers. The first is taken
    in any case: what may not fit runs alone. A model for more users than the kept one has is loaded only where those
    who wait would otherwise wait longer for their turns, one after another, than for the load.
    """
    chosen, tokens = [runs[0]], most_tokens(runs[0].request)
    for run in runs[1:]:
        longest, size = max(tokens, most_tokens(run.request)), batch_size(len(chosen) + 1)
        if _rounded_up(longest, size) <= PAGE_CACHE_TOKENS // size and longest <= (context_length or longest):
            chosen.append(run)
            tokens = longest
    if kept is not None and len(chosen) > kept.shape.batch_size:
        turns = math.ceil(len(chosen) / kept.shape.batch_size)
        if (turns - 1) * kept.run_seconds <= kept.load_seconds:
            return chosen[: kept.shape.batch_size]
    return chosen


def sequence_limit(context_length: int | None, size: int) -> int:
    """The most tokens that one of ``size`` users' prompt and answer can have together: by page cache, and by model."""
    cached = PAGE_CACHE_TOKENS // size
    return min(cached, context_length or cached)


def batch_size(prompts: int) -> int:
    """The smallest of the demo's batch sizes for so many prompts."""
    return next(size for size in BATCH_SIZES if size >= prompts)


def most_tokens(request: Request) -> int:
    """A bound for prompt and answer: a byte-level vocabulary never makes more tokens than there are bytes."""
    return len(request.prompt.encode()) + TEMPLATE_TOKENS + request.max_tokens


def _rounded_up(tokens: int, size: int) -> int:
    # Twice as many for one user, of whom the cache is small: most prompts then go to the same model.
    least = 2048 if size == 1 else 1024
    return 1 << (max(least, tokens) - 1).bit_length()
