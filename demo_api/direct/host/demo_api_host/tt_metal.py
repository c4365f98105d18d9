"""tt-metal's own model in memory: ``create_tt_model`` and ``Generator`` of a checkout, in this process."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .context import check_fits, context_for
from .detokenizer import Detokenizer
from .protocol import Completion, Failed, ModelError, OnText, Question, Refused
from .tt_metal_checkout import Checkout, close_device, import_checkout, open_device, reason, setup_step
from .tt_metal_user import OneUser

logger = logging.getLogger(__name__)

_TRY_THE_DEMO = (
    "See that the demo runs with this model (pytest models/tt_transformers/demo/simple_text_demo.py -k "
    "performance-batch-1, from the checkout's root), then start the server again."
)
_AFTER_FAILURE = "Send it again; if that fails too, restart the server, and reset the device with `tt-smi -r` before."


class TtMetal:
    """A model on one Tenstorrent chip, for one question at a time.

    Args:
        demo_home: the root of the checkout.
        max_seq_len: ``DEMO_API_MAX_SEQ_LEN``.
        top_k: what the device is given along with temperature 0.
    """

    device: str | None = None
    slots = 1

    def __init__(self, *, demo_home: str, max_seq_len: int | None, top_k: int) -> None:
        self.name = ""
        self.context = context_for(max_seq_len, None)
        self._demo_home = demo_home
        self._max_seq_len = max_seq_len
        self._top_k = top_k
        self._user: OneUser | None = None
        self._opened: tuple[Checkout, Any] | None = None

    def load(self) -> None:
        """Imports the checkout, opens the device, loads the weights, and answers once.

        The first answer compiles the kernels (minutes, if none is cached), so no client waits for that.
        """
        try:
            checkout = import_checkout(self._demo_home)
            mesh = open_device(checkout)
            self._opened = checkout, mesh
            with setup_step("The model cannot be loaded", _TRY_THE_DEMO):
                self._user = OneUser(checkout, mesh, self._max_seq_len, self._top_k)
                self.name, self.device = self._user.name, self._user.device_name
                self.context = self._user.context
            self._answer_once()
        except BaseException:  # Ctrl-C too: a device that was not closed can hang whoever opens it next
            self.close()
            raise

    def accept(self, question: Question) -> None:
        """Raises Refused for a conversation and for a seed, too: the checkout takes neither."""
        if question.seed is not None:
            raise Refused(
                "The field 'seed' is wrong: tt-metal takes no seed.",
                "Leave it out; at temperature 0, the same prompt always gets the same answer.",
                field="seed",
            )
        if len(question.turns) > 1 or any(turn["role"] != "user" for turn in question.turns):
            raise Refused(
                "The field 'messages' is wrong: tt-metal takes one message, of the role 'user'.",
                "Send only the last message, and include what the model needs from the others.",
                field="messages",
            )
        user = self._loaded()
        tokens = len(_encode(user, question))
        check_fits(tokens, user.context)
        if tokens > user.longest_prompt:
            raise Refused(
                f"The prompt is too long: it has {tokens} tokens, and this device reads {user.longest_prompt} at once.",
                "Send a shorter prompt.",
                field="prompt",
            )

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers a question. After a failure the next one is answered: nothing is closed."""
        return _Answer(self._loaded(), question, on_text).completion()

    def close(self) -> bool:
        """Frees the model and closes the device; once, however often it is called. Returns whether it is closed."""
        self._user = None
        gc.collect()  # tensors on the device must be gone before it is
        opened, self._opened = self._opened, None
        return opened is None or close_device(*opened)

    def _loaded(self) -> OneUser:
        if self._user is None:
            raise Failed("The model is not in memory.")
        return self._user

    def _answer_once(self) -> None:
        try:
            question = Question("Hello", [{"role": "user", "content": "Hello"}], max_tokens=2)
            self.complete(question, lambda *_: False)
        except ModelError as error:
            raise Failed(f"The model was loaded but does not answer: {error}", _TRY_THE_DEMO) from error


class _Answer:
    """One answer, token by token."""

    def __init__(self, user: OneUser, question: Question, on_text: OnText) -> None:
        self._user, self._question, self._on_text = user, question, on_text
        self._instruct = bool(question.turns)
        self._sampling = {"temperature": question.temperature, "top_p": question.top_p}
        self._most = question.max_tokens
        self._tokens: list[int] = []

    def completion(self) -> Completion:
        """Has the model answer."""
        started = time.monotonic()
        prompt = _encode(self._user, self._question)
        self._most = min(self._most, self._user.context - len(prompt))
        read = time.monotonic()
        with _running("read the prompt"):
            token = self._user.prefill(self._question.prompt, self._most, instruct=self._instruct, **self._sampling)
            # A chat's response is stripped, so what stands before it does not matter.
            text = Detokenizer(self._user.steady_text_of, () if self._instruct else prompt[-_BEFORE:])
        first = time.monotonic()
        steps, finish = self._decode(token, len(prompt), text)
        if finish != "cancelled" and (rest := text.rest()):
            self._on_text(rest, len(self._tokens))
        seconds = time.monotonic() - first
        return Completion(
            response=self._user.text_of(self._tokens).strip() if self._instruct else text.text,
            tokens_generated=len(self._tokens),
            prompt_tokens=len(prompt),
            finish_reason=finish,
            ttft_ms=round(1000 * (first - started), 2),
            prefill_seconds=round(first - read, 3),
            decode_seconds=round(seconds, 3),
            decode_tokens_per_second=round(steps / seconds, 2) if steps else None,
        )

    def _decode(self, token: int, position: int, text: Detokenizer) -> tuple[int, str]:
        """Goes on from the first token.

        Returns:
            how often the device was asked, and why it ended.
        """
        for steps in range(self._most):
            # The first token can be the end too. It is neither text nor counted.
            if token in self._user.stop_tokens:
                return steps, "stop"
            self._tokens.append(token)
            if self._on_text(text.add(token), len(self._tokens)):
                return steps, "cancelled"
            if steps + 1 < self._most:
                with _running("answer"):
                    token = self._user.decode(token, position + steps, **self._sampling)
        return self._most - 1, "length"


def _encode(user: OneUser, question: Question) -> list[int]:
    """The prompt's tokens; of a conversation it has one turn only."""
    with _running("read the prompt"):
        return user.encode(question.prompt, instruct=bool(question.turns))


_BEFORE = 5
"""As many tokens before a continued text as any tokenizer's spaces depend on."""


@contextmanager
def _running(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.exception("the model could not %s", what)
        raise Failed(f"The model could not {what}: {reason(error)}.", _AFTER_FAILURE) from error
