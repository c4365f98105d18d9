"""One question that the direct engine answers, from its arrival to its end."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from queue import Empty, SimpleQueue

from demo_api.direct.model import Completion, Model
from demo_api.direct.stop_sequences import StopSequences
from demo_api.errors import DemoApiError, ShuttingDown
from demo_api.messages import Answer, Event, Failure, Question, Result, Run, Timing
from demo_api.messages.health import Estimate
from demo_api.queue import new_id

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.5
"""How often those who wait look whether their client is still there."""

_PROGRESS_SECONDS = 0.2
"""How often a run says how far it is, as of the demo engine."""


class DirectRun:
    """One question, from its arrival to its end; used by the slot that answers it and by its client's thread.

    Args:
        timeout_s: how long the answer may take from its start.
        estimate: how long runs like it usually take.
        load_seconds: how long it has waited for the model to be loaded.
    """

    def __init__(
        self, question: Question, *, timeout_s: float, estimate: Estimate | None = None, load_seconds: float = 0.0
    ) -> None:
        self.run_id = new_id()
        self._question = question
        self._run = Run(self.run_id, question.request, accepted_at=time.time() - load_seconds)
        self._accepted = time.monotonic() - load_seconds
        self._load_seconds = load_seconds
        self._timeout_s = timeout_s
        self._estimate = estimate
        self._deadline = math.inf
        self._first_token: tuple[float, int] | None = None  # when, and how many tokens there were
        self._reported_tokens = 1  # the first one is no progress of the decode
        self._next_progress = 0.0
        self._stops = StopSequences(question.stop)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._stop_reason: str | None = None
        self._lock = threading.Lock()  # whether it starts or is stopped before
        self._ended = threading.Event()
        self._emit("queued")

    def answer_with(self, model: Model) -> None:
        """Has the model answer, in the calling thread, unless it was stopped before. Whatever happens, the run ends."""
        with self._lock:
            if self._run.ended:
                return
            started = time.monotonic()
            self._deadline = started + self._timeout_s
            waited = round(started - self._accepted - self._load_seconds, 3)
            self._run = replace(self._run, status="running", started_at=time.time(), waited_seconds=waited, attempts=1)
            self._emit("started", attempt=1, batch_size=1, device=model.device, estimate=self._estimate)
            self._emit("phase", phase="prefill")
        self._end(self._result(model))

    def run(self) -> Run:
        """The run as it is now."""
        return self._run

    def stop(self, reason: str) -> None:
        """Ends it within one token, or at once if it waits; the first reason counts. Returns at once."""
        with self._lock:
            self._stop_reason = self._stop_reason or reason
            if self._run.status == "queued":
                self._end(self._stopped(self._stop_reason, None))

    def wait(self, is_gone: Callable[[], bool]) -> Run:
        """Waits for the run's end; a client that is gone cancels it: nobody else can get the answer."""
        while not self._ended.wait(_LOOK_UP_SECONDS):
            if is_gone():
                self.stop("cancelled")
        if self._run.result and self._run.result.failure and self._run.result.failure.code == "shutting_down":
            raise ShuttingDown("The server is stopping; the answer was interrupted.", run_id=self.run_id)
        return self._run

    def events(self) -> Generator[tuple[int, Event] | None]:
        """Yields the run's events; to one client, once."""
        number = 0
        while True:
            try:
                event = self._events.get(timeout=_LOOK_UP_SECONDS)
            except Empty:
                yield None
                continue
            number += 1
            yield number, event
            if event.kind == "done":
                return

    def leave(self) -> None:
        """Cancels the run: nobody else can get the answer."""
        self.stop("cancelled")

    def output(self, run: Run) -> str | None:
        """None: nothing prints here."""
        return None

    def _on_text(self, text: str, tokens: int) -> bool:
        self._emit_progress(tokens)
        self._say(self._stops.add(text))
        if time.monotonic() > self._deadline:
            self.stop("timed_out")
        return self._stop_reason is not None or self._stops.found

    def _emit_progress(self, tokens: int) -> None:
        """As the demo engine's: the prefill makes the first token, iteration 0 of the decode the second."""
        now = time.monotonic()
        if tokens and self._first_token is None:
            self._first_token = now, tokens
            self._emit("phase", phase="decode")
        if tokens > self._reported_tokens and self._first_token and now >= self._next_progress:
            self._reported_tokens, self._next_progress = tokens, now + _PROGRESS_SECONDS
            since, before = self._first_token
            rate = round((tokens - before) / (now - since), 2) if tokens > before and now > since else None
            self._emit("progress", iteration=tokens - 2, tokens_per_second_per_user=rate)

    def _say(self, text: str) -> None:
        if text:
            self._emit("text", added=text)

    def _emit(self, kind: str, **data: object) -> None:
        self._events.put(Event(kind, time.time(), data))

    def _result(self, model: Model) -> Result:
        try:
            completion = model.complete(self._question, self._on_text)
        except DemoApiError as error:
            return Result(self.run_id, failure=Failure(error.code, str(error), error.next_step))
        except Exception as error:
            logger.exception("run %s failed", self.run_id, extra={"run_id": self.run_id})
            sentence = f"The engine failed: {type(error).__name__}: {error}."
            return Result(self.run_id, failure=Failure("internal_error", sentence, "Look at the server's log."))
        if self._stops.found:
            return self._answered(self._cut(completion), model)
        if completion.finish_reason == "cancelled":
            return self._stopped(self._stop_reason or "cancelled", model.name)
        self._say(self._stops.rest())
        return self._answered(completion, model)

    def _cut(self, completion: Completion) -> Completion:
        """The completion without the stop sequence; the tokens that made it are counted."""
        said = self._stops.said
        response = said.strip() if self._question.turns else said
        return replace(completion, response=response, finish_reason="stop")

    def _answered(self, completion: Completion, model: Model) -> Result:
        timing = Timing(
            queue_seconds=self._run.waited_seconds,
            load_seconds=round(self._load_seconds, 3) if self._load_seconds else None,
            prefill_seconds=completion.prefill_seconds,
            decode_seconds=completion.decode_seconds,
            ttft_ms=completion.ttft_ms,
            decode_tokens_per_second=completion.decode_tokens_per_second,
        )
        return Result(
            self.run_id,
            answer=Answer(completion.response, completion.tokens_generated, completion.prompt_tokens),
            timing=timing,
            model=model.name,
            device=model.device,
            finish_reason=completion.finish_reason,
        )

    def _stopped(self, reason: str, model: str | None) -> Result:
        sentences = {
            "cancelled": "The request was cancelled.",
            "timed_out": f"The answer took longer than {self._timeout_s:g} s and was stopped.",
            "shutting_down": "The server is stopping; the answer was interrupted.",
        }
        return Result(self.run_id, failure=Failure(reason, sentences[reason]), model=model)

    def _end(self, result: Result) -> None:
        failure = result.failure
        status = "succeeded" if failure is None else "failed"
        if failure is not None and failure.code in ("cancelled", "timed_out"):
            status = failure.code
        seconds = round(time.monotonic() - self._accepted, 3)
        ended = replace(self._run, status=status, finished_at=time.time(), time_seconds=seconds, result=result)
        self._run = ended
        self._emit("done")
        self._ended.set()
