"""The direct engine: a model that is loaded once, slots in which it answers, and a bounded queue before them."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.direct.model import Model
from demo_api.direct.run import DirectRun
from demo_api.errors import BadRequest, DemoApiError, QueueFull, SetupError, ShuttingDown, Starting
from demo_api.messages import DeviceHealth, EngineHealth, Estimate, Question, Request, Run
from demo_api.queue.estimate import MOST_RUNS, estimate

logger = logging.getLogger(__name__)

_REMEMBERED_RUNS = 200

_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 600.0
_LOOK_UP_SECONDS = 0.5
"""How often a question that waits for a model looks whether it is still wanted."""


class DirectEngine:
    """Answers questions with a model in memory. All methods may be called from any thread.

    The model is loaded and closed by a thread of its own. When it is lost, the questions that it was answering fail,
    those that wait go on waiting, and it is loaded again: at once, and then after pauses that grow until it answers.
    """

    engine_name = "direct"

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._lock = threading.Lock()
        self._problem: DemoApiError | None = Starting("The model is being loaded.", phase="load", retry_after=1)
        self._failure: DemoApiError | None = None
        self._first_load_ended = threading.Event()
        self._changed = threading.Condition(self._lock)  # whether there is a problem, or the engine was closed
        self._lost: str | None = None  # how, since the latest load began
        self._losses = 0
        self._latest_loss: str | None = None
        self._failures = 0  # since the latest answer
        self._closing = threading.Event()
        self._hurried = threading.Event()
        self._open: set[DirectRun] = set()
        self._latest: deque[tuple[Request | None, float]] = deque(maxlen=_REMEMBERED_RUNS)
        self._pool = ThreadPoolExecutor(model.slots, thread_name_prefix="slot")
        # A daemon: Python waits for all others before it calls close(), which was given to atexit and ends this one.
        self._model_thread = threading.Thread(target=self._keep_loaded, name="model", daemon=True)
        self._started = False
        self._on_end: Callable[[Run], None] = lambda run: None

    def start(self) -> None:
        """Begins to load the model, once."""
        with self._lock:
            if not self._started and not self.closed:
                self._started = True
                self._model_thread.start()

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
        self._first_load_ended.wait()
        if self._failure is not None:
            raise self._failure

    def check(self) -> None:
        """Raises Starting while the model is loaded, SetupError if that failed, ShuttingDown after ``close``."""
        if self.closed:
            raise ShuttingDown("The server is stopping and accepts no more requests.")
        if self._problem is not None:
            raise self._problem

    def begin(self, question: Question, idempotency_key: str | None = None) -> DirectRun:
        """Puts a question into the queue.

        Raises:
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
        self._model.accept(question)
        with self._lock:
            run = DirectRun(question, timeout_s=self._settings.run_timeout, estimate=self._estimate(question.request))
            if sum(self._counts()) >= self._model.slots + self._settings.max_queue:
                raise QueueFull(
                    f"{self._settings.max_queue} requests are waiting, and no more can.",
                    retry_after=self._retry_after(),
                )
            self._open.add(run)
            self._pool.submit(self._answer, run)
        return run

    def describe(self) -> EngineHealth:
        """What ``/health`` says of the model, the queue and the slots."""
        with self._lock:
            waiting, running = self._counts()
            estimated = self._estimate(None)
        loaded = self._problem is None
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
            "losses": self._losses,
            "latest_loss": self._latest_loss,
            "settings": {"max_seq_len": self._model.context, "paged_attention": False, "temperature": 0.0},
        }

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Gives what runs its time, cancels what is left, and frees the model."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        deadline = time.monotonic() + self._settings.drain
        while self._open and time.monotonic() < deadline and not self._hurried.wait(0.02):
            pass
        with self._lock:
            left = list(self._open)
        for run in left:
            run.stop("shutting_down")
        self._pool.shutdown()
        self._model.stop()
        if self._started:
            self._model_thread.join()

    def hurry(self) -> None:
        """Cancels what runs at once."""
        self._hurried.set()
        self._model.hurry()

    def _keep_loaded(self) -> None:
        """The life of the model's thread: loads it, and again whenever it was lost, until the engine is closed."""
        while not self.closed:
            if self._load():
                with self._changed:
                    self._changed.wait_for(lambda: self.closed or self._lost is not None)
            if not self.closed:
                self._model.close()
                self._closing.wait(self._next_pause())
        self._pool.shutdown()  # nobody may use the model any more
        self._model.close()

    def _load(self) -> bool:
        """Loads the model. Returns whether that succeeded."""
        started = time.monotonic()
        self._lost = None
        try:
            self._model.load(self._on_lost)
        except DemoApiError as error:
            self._failed(error)
        except Exception as error:
            logger.exception("the model could not be loaded")
            self._failed(SetupError(f"The model could not be loaded: {type(error).__name__}: {error}."))
        else:
            with self._changed:
                if self._lost is None:
                    self._problem = None
                self._changed.notify_all()
            logger.info("model %s is in memory after %.1f s", self._model.name, time.monotonic() - started)
            self._first_load_ended.set()
            return True
        return False

    def _failed(self, error: DemoApiError) -> None:
        logger.error("the model is not loaded: %s", error)
        self._failure = error
        self._problem = SetupError(str(error), next_step=error.next_step)
        self._first_load_ended.set()

    def _on_lost(self, sentence: str) -> None:
        with self._changed:
            self._lost = self._latest_loss = sentence
            self._losses += 1
            self._problem = Starting(f"{sentence} It is being loaded again.", phase="load", retry_after=1)
            self._changed.notify_all()

    def _next_pause(self) -> float:
        """Seconds before the next load: none at first."""
        pause: float = min(_PAUSE_SECONDS * (2**self._failures - 1), _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 10)
        return pause

    def _wait_for_model(self, run: DirectRun) -> None:
        """Waits until the model is in memory, or the run is not wanted any more."""
        with self._changed:
            while not self._changed.wait_for(
                lambda: self._problem is None or run.run().ended, timeout=_LOOK_UP_SECONDS
            ):
                pass

    def _counts(self) -> tuple[int, int]:
        """How many wait, and how many are answered. Who has hung up while waiting is neither."""
        statuses = [run.run().status for run in self._open]
        return statuses.count("queued"), statuses.count("running")

    def _answer(self, run: DirectRun) -> None:
        self._wait_for_model(run)
        started = time.monotonic()
        try:
            run.answer_with(self._model)
            self._on_end(run.run())
        finally:
            with self._lock:
                self._open.discard(run)
                if run.run().status == "succeeded":
                    self._failures = 0
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
    return request.model_copy(update={"prompt": ""})
