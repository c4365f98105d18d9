"""What the server and the model's process say to each other. This is the one place where it is written down.

There is a pipe for each direction, beside standard output, which belongs to whatever libraries print. Each carries
lines of JSON in ASCII, one object a line, of any length. ``id`` is a number that the server chooses for each question.

To the process:

``{"load": {"version": 1, "engine": "llama_cpp" or "tt_metal", "options": {...}, "remove": [path, ...]}}``
    the first line: load this model. The options are those of ``LlamaCpp`` or ``TtMetal``. The files are removed when
    the device is closed: that they are still there tells that this process was killed.
``{"id": 7, "accept": {...}}``
    can the model answer this Question?
``{"id": 8, "answer": {...}}``
    answer it; several may be answered at the same time, as many as ``slots``.
``{"cancel": 8}``
    end that answer within a token. One that has ended, or that nobody has asked for, does no harm.
the end of input
    end all answers, free the model, close the device and leave, as at SIGINT.

From the process:

``{"ready": {"version": 1, "name": ..., "device": ..., "slots": 8, "context": 2048}}``
    the model is loaded; or ``{"error": {...}}``, and the process leaves.
``{"id": 7, "accepted": true}``
    or an error.
``{"id": 8, "text": "...", "tokens": 3}``
    what the latest token adds, and how many there are; ``tokens`` is 0 while the prompt is read.
``{"id": 8, "done": {...}}``
    the Completion, also of an answer that was cancelled; or an error.
``{"id": 8, "error": {"kind": "refused" or "failed", "message": ..., "next_step": ..., "field": ...}}``
    the question cannot be answered as it is, or the model failed; in a load, a setting is wrong, or something else is.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

VERSION = 1

CHUNK = 256 * 1024
"""Bytes that are read at once."""

OnText = Callable[[str, int], bool]
"""Called with what the latest token adds to the text, and how many tokens the answer has by now: 0 while the prompt is
read. True ends the answer there, within one token."""


@dataclass(frozen=True)
class Question:
    """What a model is to answer.

    Attributes:
        prompt: the last turn, or the raw text.
        turns: the whole conversation, each with ``role`` and ``content``; empty for text that is to be continued as it
            is, without the chat template.
        max_tokens: most tokens of the answer.
        temperature: 0 is greedy.
        top_p: the share of the probability to sample from.
        seed: makes a sampled answer repeatable; None for a random one.
    """

    prompt: str
    turns: list[dict[str, str]]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 0.9
    seed: int | None = None


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


class ModelError(Exception):
    """Why a model cannot be loaded, or a question not be answered.

    Args:
        message: one sentence.
        next_step: one sentence that says what to do about it.
        field: the part of the question that is wrong.
    """

    kind = "failed"

    def __init__(self, message: str, next_step: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.field = field

    def as_json(self) -> dict[str, str | None]:
        """The error as it is sent."""
        return {"kind": self.kind, "message": str(self), "next_step": self.next_step, "field": self.field}


class Refused(ModelError):
    """The question, or a setting, is wrong."""

    kind = "refused"


class Failed(ModelError):
    """The model, or the machine, failed."""


def lines(read: Callable[[], bytes]) -> Iterator[bytes]:
    """The lines of a pipe, without their ends, up to its end; a line that was cut off there is dropped.

    Args:
        read: gives the next bytes, none at the end.
    """
    pieces: list[bytes] = []
    while True:
        piece = read()
        if not piece:
            return
        *whole, rest = piece.split(b"\n")
        for end in whole:
            yield b"".join([*pieces, end])
            pieces = []
        pieces.append(rest)


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode("ascii") + b"\n"


class Writer:
    """Writes lines into a pipe, from any thread. It waits for a reader that stalls."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes one message.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._fd, line) :]
