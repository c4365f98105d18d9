"""When the direct engine's model is in memory: from the start, again when it was lost, and after it was let go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from demo_api.direct.model import Model
from demo_api.errors import DemoApiError, SetupError, ShuttingDown, Starting

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 600.0
_MOST_DOUBLINGS = 10
_LOOK_UP_SECONDS = 0.5
"""How often those who wait for a model look whether they still want it."""


class ModelLoading:
    """Loads and closes a model, in a thread of its own. All methods may be called from any thread.

    A model that was lost, or could not be loaded, is loaded again: at once, and then after pauses that grow until it
    has answered. One that nobody uses for a while is closed, and loaded when it is used again.

    Args:
        idle: seconds without a use after which the model is closed; None for never.
    """

    def __init__(self, model: Model, *, idle: float | None) -> None:
        self._model = model
        self._idle = idle
        self._changed = threading.Condition()
        self._problem: DemoApiError | None = Starting("The model is being loaded.", phase="load", retry_after=1)
        self._first_failure: DemoApiError | None = None
        self._first_load_ended = threading.Event()
        self._closing = threading.Event()
        self._lost: str | None = None  # how, since the latest load began
        self._losses = 0
        self._latest_loss: str | None = None
        self._failures = 0  # since the latest answer
        self._users = 0
        self._used_at = time.monotonic()
        self._is_let_go = False  # until it is loaded again
        # A daemon: Python waits for all others before it calls close(), which was given to atexit and ends this one.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._has_started = False

    def start(self) -> None:
        """Begins to load the model, once."""
        with self._changed:
            if not self._has_started and not self._closing.is_set():
                self._has_started = True
                self._thread.start()

    def wait_for_first(self) -> None:
        """Waits until the model is in memory for the first time.

        Raises:
            DemoApiError: the first load failed, or ``close`` came before it.
        """
        self._first_load_ended.wait()
        if self._first_failure is not None:
            raise self._first_failure

    def check(self) -> None:
        """Raises Starting while the model is loaded, SetupError if that failed. One that was let go is no problem."""
        if self._problem is not None:
            raise self._problem

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._problem is None and not self._is_let_go

    @property
    def losses(self) -> tuple[int, str | None]:
        """How often the model was lost, and a sentence about the last time."""
        return self._losses, self._latest_loss

    def begin_use(self) -> float:
        """Keeps the model in memory until ``end_use``; waits while one that was let go is loaded.

        Returns:
            the seconds that this took; 0 if it was in memory.

        Raises:
            DemoApiError: it could not be loaded, or the engine is closed meanwhile.
        """
        started = time.monotonic()
        with self._changed:
            self._users += 1
            if not self._is_let_go:
                return 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_let_go or self._closing.is_set())
        try:
            if self._closing.is_set():
                raise _stopping()
            self.check()
        except DemoApiError:
            self.end_use()
            raise
        return time.monotonic() - started

    def end_use(self, *, has_answered: bool = False) -> None:
        """Says that one who began to use the model needs it no more.

        Args:
            has_answered: whether it has done what was asked.
        """
        with self._changed:
            self._users -= 1
            self._used_at = time.monotonic()
            if has_answered:
                self._failures = 0

    def wait_until_loaded(self, is_unwanted: Callable[[], bool]) -> None:
        """Waits while a model that was lost is loaded again, for as long as that is wanted."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._problem is None or is_unwanted(), timeout=_LOOK_UP_SECONDS):
                pass

    def close(self) -> None:
        """Breaks off a load that goes on, closes the model, and returns when that is done. Nobody may use it."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._model.stop()
        if self._has_started:
            self._thread.join()
        if not self._first_load_ended.is_set():  # it was not even begun
            self._first_failure = _stopping()
            self._first_load_ended.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._load() and self._wait_until_lost_or_idle():
                logger.info("model %s is let go: nobody has used it for %g s", self._model.name, self._idle)
                self._model.close()
                with self._changed:
                    self._changed.wait_for(lambda: self._closing.is_set() or self._users > 0)
            elif not self._closing.is_set():
                self._model.close()
                self._closing.wait(self._next_pause())
        self._model.close()

    def _load(self) -> bool:
        """Loads the model. Returns whether that succeeded."""
        started = time.monotonic()
        self._lost = None
        problem: DemoApiError | None = None
        try:
            self._model.load(self._on_lost)
            logger.info("model %s is in memory after %.1f s", self._model.name, time.monotonic() - started)
        except DemoApiError as error:
            logger.error("the model is not loaded: %s", error)
            self._first_failure = error
            problem = SetupError(str(error), next_step=error.next_step)
        except Exception as error:
            logger.exception("the model could not be loaded")
            problem = SetupError(f"The model could not be loaded: {type(error).__name__}: {error}.")
            self._first_failure = problem
        with self._changed:
            if problem is not None or self._lost is None:
                self._problem = problem
            self._is_let_go = False
            self._used_at = time.monotonic()
            self._changed.notify_all()
        self._first_load_ended.set()
        return problem is None

    def _on_lost(self, sentence: str) -> None:
        with self._changed:
            self._lost = self._latest_loss = sentence
            self._losses += 1
            self._problem = Starting(f"{sentence} It is being loaded again.", phase="load", retry_after=1)
            self._changed.notify_all()

    def _wait_until_lost_or_idle(self) -> bool:
        """Waits while the model is of use. Returns whether it is only idle: then whoever comes now waits for a load."""
        with self._changed:
            while self._lost is None and not self._closing.is_set():
                left = self._idle
                if self._idle is not None and not self._users:
                    left = self._used_at + self._idle - time.monotonic()
                    if left <= 0:
                        self._is_let_go = True
                        return True
                self._changed.wait(left)
        return False

    def _next_pause(self) -> float:
        """Seconds before the next load: none at first."""
        pause: float = min(_PAUSE_SECONDS * (2**self._failures - 1), _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        return pause


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is stopping and accepts no more requests.")
