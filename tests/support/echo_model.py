"""A hand-written model in memory, for the tests of what stands above the models."""

from __future__ import annotations

import threading

from support.waiting import wait_for

from demo_api.direct.host.demo_api_host.context import check_fits
from demo_api.direct.host.demo_api_host.protocol import Refused
from demo_api.direct.model import Completion, OnLost, OnText
from demo_api.errors import BadRequest, SetupError
from demo_api.messages import Question


class EchoModel:
    """Answers with the prompt, word by word. Each word waits until it is let go, if that is asked for."""

    name = "echo"
    context = 2048
    device: str | None = "CPU"

    def __init__(self, *, slots: int = 2, paused: bool = False, loads: bool = True) -> None:
        self.slots = slots
        self.let_go = threading.Event()
        self.let_load = threading.Event()
        self.let_load.set()
        self.entered = threading.Semaphore(0)
        self.at_once = 0
        self.most_at_once = 0
        self.words = 0
        self.closed = 0
        self.was_closed_in_use = False
        self._loads = loads
        self._let_words = 0
        self._lock = threading.Lock()
        if not paused:
            self.let_go.set()

    def let_words(self, count: int) -> None:
        """Lets so many words of each answer go."""
        self._let_words = count

    def load(self, on_lost: OnLost) -> None:
        self.lose = on_lost
        wait_for(self.let_load)
        if not self._loads:
            raise SetupError("The model is broken.", next_step="Get another.")

    def accept(self, question: Question) -> None:
        if "refuse" in question.request.prompt:
            raise BadRequest("No.", field="prompt")
        try:
            check_fits(len(question.request.prompt.split(" ")), self.context)
        except Refused as error:
            raise BadRequest(str(error), next_step=error.next_step, field=error.field or "") from None

    def complete(self, question: Question, on_text: OnText) -> Completion:
        assert not self.closed
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.release()
        try:
            return self._say(question, on_text)
        finally:
            with self._lock:
                self.at_once -= 1

    def _say(self, question: Question, on_text: OnText) -> Completion:
        prompt = question.request.prompt
        if prompt == "break":
            raise RuntimeError("It broke.")
        said: list[str] = []
        for word in prompt.split(" ")[: question.request.max_tokens]:
            while len(said) >= self._let_words and not self.let_go.wait(0.01):
                if on_text("", len(said)):
                    return Completion("", 0, None, "cancelled")
            said.append(word if not said else f" {word}")
            self.words += 1
            if on_text(said[-1], len(said)):
                return Completion("".join(said), len(said), 3, "cancelled")
        finish = "length" if len(said) < len(prompt.split(" ")) else "stop"
        return Completion("".join(said), len(said), 3, finish, ttft_ms=1.5, decode_tokens_per_second=10.0)

    def stop(self) -> None:
        self.let_load.set()

    def hurry(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1
        self.was_closed_in_use = self.was_closed_in_use or self.at_once > 0
