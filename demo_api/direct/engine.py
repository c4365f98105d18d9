"""The direct engine: a model that is loaded once, slots in which it answers, and a bounded queue before them."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo.capabilities import check_model
from demo_api.direct.loading import ModelLoading
from demo_api.direct.model import Model
from demo_api.direct.run import DirectRun
from demo_api.errors import BadRequest, QueueFull, ShuttingDown
from demo_api.messages import Question, Request, Run
from demo_api.messages.health import DeviceHealth, EngineHealth, Estimate
from demo_api.queue.estimate import MOST_RUNS, estimate

_REMEMBERED_RUNS = 200


class DirectEngine:
    """Answers questions with a model in memory. All methods may be called from any thread.

    When the model is lost, the questions that it was answering fail, and those that wait go on waiting.
    """

    engine_name = "direct"

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._lock = threading.Lock()
        self._loading = ModelLoading(model, idle=settings.warm_idle)
        self._closing = threading.Event()
        self._hurried = threading.Event()
        self._open: set[DirectRun] = set()
        self._latest: deque[tuple[Request | None, float]] = deque(maxlen=_REMEMBERED_RUNS)
        self._pool = ThreadPoolExecutor(model.slots, thread_name_prefix="slot")
        self._on_end: Callable[[Run], None] = lambda run: None

    def start(self) -> None:
        """Begins to load the model, once."""
        self._loading.start()

    def listen(self, on_end: Callable[[Run], None]) -> None:
        """Calls this with every run that has ended."""
        self._on_end = on_end

    def wait_until_loaded(self) -> None:
        """Waits until the model is in memory for the first time.

        Raises:
            SetupError: it could not be loaded.
            EngineLost: its process ended meanwhile.
            BadRequest: a setting does not suit it.
        """
        self._loading.wait_for_first()

    def check(self) -> None:
        """Raises Starting while the model is loaded, SetupError if that failed, ShuttingDown after ``close``."""
        if self.closed:
            raise ShuttingDown("The server is stopping and accepts no more requests.")
        self._loading.check()

    def begin(self, question: Question, idempotency_key: str | None = None) -> DirectRun:
        """Puts a question into the queue.

        Raises:
            ModelNotFound: it is for another model.
            BadRequest: the model cannot answer it, or an Idempotency-Key was given: nothing is kept here.
            QueueFull: as many wait as may wait.
        """
        self.check()
        if idempotency_key is not None:
            raise BadRequest(
                "The direct engine stores no runs, so it does not support Idempotency-Key.",
                next_step="Leave the header out.",
                field="Idempotency-Key",
            )
        check_model(question.request.model, self.models())
        load_seconds = self._loading.begin_use()
        try:
            self._model.accept(question)
            return self._queue(question, load_seconds)
        except BaseException:
            self._loading.end_use()
            raise

    def _queue(self, question: Question, load_seconds: float) -> DirectRun:
        with self._lock:
            estimated = self._estimate(question.request)
            run = DirectRun(
                question, timeout_s=self._settings.run_timeout, estimate=estimated, load_seconds=load_seconds
            )
            if sum(self._counts()) >= self._model.slots + self._settings.max_queue:
                raise QueueFull(
                    f"{self._settings.max_queue} requests are waiting, and no more can.",
                    retry_after=self._retry_after(),
                )
            self._open.add(run)
            self._pool.submit(self._answer, run)
        return run

    def models(self) -> list[str]:
        """The name of the one model; none before it was loaded."""
        return [self._model.name] if self._model.name else []

    def describe(self) -> EngineHealth:
        """What ``/health`` says of the model, the queue and the slots."""
        with self._lock:
            waiting, running = self._counts()
            estimated = self._estimate(None)
        loaded = self._loading.is_loaded
        losses, latest_loss = self._loading.losses
        state = "busy" if running else "free"
        device: DeviceHealth = {
            "name": self._model.device,
            "state": state,
            "reason": None,
            "since": None,
            "warm": "off",
            "warm_since": None,
            "warm_batches": None,
        }
        variable, path = home.model_variable(self._settings)
        return {
            "model": self._model.name or None,
            "model_loaded": loaded,
            **home.model_place(variable, path),
            "queue": {
                "waiting": waiting,
                "running": running,
                "limit": self._settings.max_queue,
                "slots": self._model.slots,
            },
            "device": device if loaded else None,
            "devices": [device] if loaded else [],
            "estimate": estimated,
            "losses": losses,
            "latest_loss": latest_loss,
            "nodes": [],
            "pools": [],
            "settings": {"max_seq_len": self._model.context, "paged_attention": False, "temperature": 0.0},
        }

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Gives what runs its time, cancels what is left, and frees the model."""
        self._closing.set()
        deadline = time.monotonic() + self._settings.drain
        while self._open and time.monotonic() < deadline and not self._hurried.wait(0.02):
            pass
        with self._lock:
            left = list(self._open)
        for run in left:
            run.stop("shutting_down")
        self._pool.shutdown()
        self._loading.close()

    def hurry(self) -> None:
        """Cancels what runs at once."""
        self._hurried.set()
        self._model.hurry()

    def _counts(self) -> tuple[int, int]:
        """How many wait, and how many are answered. Who has hung up while waiting is neither."""
        statuses = [run.run().status for run in self._open]
        return statuses.count("queued"), statuses.count("running")

    def _answer(self, run: DirectRun) -> None:
        self._loading.wait_until_loaded(lambda: run.run().ended)
        started = time.monotonic()
        try:
            run.answer_with(self._model)
            self._on_end(run.run())
        finally:
            self._loading.end_use(has_answered=run.run().status == "succeeded")
            with self._lock:
                self._open.discard(run)
                if run.run().attempts:
                    like = _without_prompt(run.run().request) if run.run().status == "succeeded" else None
                    self._latest.append((like, time.monotonic() - started))

    def _estimate(self, request: Request | None) -> Estimate | None:
        """As ``History.estimate``, from what this process has answered."""
        wanted = request and _without_prompt(request)
        found = [seconds for like, seconds in self._latest if like is not None and wanted in (None, like)]
        return estimate(found[-MOST_RUNS:])

    def _retry_after(self) -> int:
        """Whole seconds until one fewer is waiting, by the median of the latest requests; 1 before any."""
        latest = [seconds for _, seconds in self._latest][-MOST_RUNS:]
        median = statistics.median(latest) if latest else 0.0
        return max(1, math.ceil(median / self._model.slots))


def _without_prompt(request: Request) -> Request:
    """What makes runs alike; and no prompt is kept here."""
    return request.model_copy(update={"prompt": "", "model": None})
