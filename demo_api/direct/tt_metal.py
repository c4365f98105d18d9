"""tt-metal's own model in memory: ``create_tt_model`` and ``Generator`` of a checkout, in this process.

The process must therefore run in tt-metal's environment: docs/hardware.md says how. From ``load`` to ``close`` it
locks the device, also against children of the demo engine.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from demo_api.config import Settings
from demo_api.direct.detokenizer import Detokenizer
from demo_api.direct.model import Completion, OnText, check_fits, context_for
from demo_api.direct.tt_metal_checkout import (
    close_device,
    import_checkout,
    lock_device,
    open_device,
    reason,
    setup_step,
)
from demo_api.direct.tt_metal_user import OneUser
from demo_api.errors import BadRequest, DemoApiError, RunFailed, SetupError
from demo_api.messages import Question, Request

logger = logging.getLogger(__name__)

_TRY_THE_DEMO = (
    "See that the demo runs with this model (pytest models/tt_transformers/demo/simple_text_demo.py -k "
    "performance-batch-1, from the checkout's root), then start the server again."
)
_AFTER_FAILURE = "Send it again; if that fails too, restart the server, and reset the device with `tt-smi -r` before."


class TtMetal:
    """A model on one Tenstorrent chip, for one question at a time."""

    device: str | None = None
    slots = 1

    def __init__(self, settings: Settings) -> None:
        self.name = ""
        self.context = context_for(settings.max_seq_len, None)
        self._settings = settings
        self._user: OneUser | None = None
        self._opened = ExitStack()

    def load(self) -> None:
        """Imports the checkout, opens the device, loads the weights, and answers once.

        The first answer compiles the kernels (minutes, if none is cached), so no client waits for that.
        """
        try:
            self._opened.enter_context(lock_device(self._settings))
            checkout = import_checkout(self._settings)
            mesh = open_device(checkout)
            self._opened.callback(close_device, checkout, mesh)
            with setup_step("The model cannot be loaded", _TRY_THE_DEMO):
                self._user = OneUser(checkout, mesh, self._settings.max_seq_len)
                self.name, self.device = self._user.name, self._user.device_name
                self.context = self._user.context
            self._answer_once()
        except BaseException:  # Ctrl-C too: a device that was not closed can hang whoever opens it next
            self.close()
            raise

    def accept(self, question: Question) -> None:
        """Raises BadRequest for a conversation and for a seed, too: the checkout takes neither."""
        if question.request.seed is not None:
            raise BadRequest(
                "The field 'seed' is wrong: tt-metal takes no seed.",
                next_step="Leave it out; at temperature 0, the same prompt always gets the same answer.",
                field="seed",
            )
        if len(question.turns) > 1 or any(turn.role != "user" for turn in question.turns):
            raise BadRequest(
                "The field 'messages' is wrong: tt-metal takes one message, of the role 'user'.",
                next_step="Send only the last message, and include what the model needs from the others.",
                field="messages",
            )
        user = self._loaded()
        tokens = len(_encode(user, question))
        check_fits(tokens, user.context)
        if tokens > user.longest_prompt:
            raise BadRequest(
                f"The prompt is too long: it has {tokens} tokens, and this device reads {user.longest_prompt} at once.",
                next_step="Send a shorter prompt.",
                field="prompt",
            )

    def complete(self, question: Question, on_text: OnText) -> Completion:
        """Answers a question. After a failure the next one is answered: nothing is closed."""
        return _Answer(self._loaded(), question, on_text).completion()

    def close(self) -> None:
        """Frees the model and closes the device; once, however often it is called."""
        self._user = None
        gc.collect()  # tensors on the device must be gone before it is
        self._opened.close()

    def _loaded(self) -> OneUser:
        if self._user is None:
            raise RunFailed("The model is not in memory.", code="internal_error", next_step="Restart the server.")
        return self._user

    def _answer_once(self) -> None:
        try:
            self.complete(Question.of(Request.model_validate({"prompt": "Hello", "max_tokens": 2})), lambda *_: False)
        except DemoApiError as error:
            raise SetupError(f"The model was loaded but does not answer: {error}", next_step=_TRY_THE_DEMO) from error


class _Answer:
    """One answer, token by token."""

    def __init__(self, user: OneUser, question: Question, on_text: OnText) -> None:
        self._user, self._question, self._on_text = user, question, on_text
        self._instruct = bool(question.turns)
        self._sampling = {"temperature": question.request.temperature or 0.0, "top_p": question.request.top_p}
        self._most = question.request.max_tokens
        self._tokens: list[int] = []

    def completion(self) -> Completion:
        """Has the model answer."""
        started = time.monotonic()
        prompt = _encode(self._user, self._question)
        self._most = min(self._most, self._user.context - len(prompt))
        read = time.monotonic()
        with _running("read the prompt"):
            token = self._user.prefill(
                self._question.request.prompt, self._most, instruct=self._instruct, **self._sampling
            )
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
        return user.encode(question.request.prompt, instruct=bool(question.turns))


_BEFORE = 5
"""As many tokens before a continued text as any tokenizer's spaces depend on."""


@contextmanager
def _running(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.exception("the model could not %s", what)
        sentence = f"The model could not {what}: {reason(error)}."
        raise RunFailed(sentence, code="internal_error", next_step=_AFTER_FAILURE) from error
