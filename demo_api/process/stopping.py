"""How a signal stops a command and its child, at whatever moment it comes.

A handler that raises, as Python's own does at Ctrl-C, may do so between the spawn and the line that remembers the
child, or where Python can only swallow it. So none does: a signal calls a function, and that stops the child.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from itertools import chain, repeat
from types import FrameType

from demo_api.process.child import Child

logger = logging.getLogger(__name__)


def stop_on_signals(stop: Callable[[], None], hurry: Callable[[], None]) -> None:
    """Calls ``stop`` at the first SIGINT, SIGTERM or SIGHUP, and ``hurry`` at each further one.

    Each is called on a thread of its own. A SIGHUP that is ignored stays so, as ``nohup`` has it. To be called on the
    main thread, before anything is spawned.
    """
    # Not in the signal handler itself: it may have interrupted a thread that has the locks which stopping needs.
    actions = chain([_logged(stop)], repeat(hurry))

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=next(actions)).start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)


def _logged(stop: Callable[[], None]) -> Callable[[], None]:
    def act() -> None:
        logger.info("stopping; what runs may end, and the device is closed (once more to hurry)")
        stop()

    return act


class Stopped(Exception):
    """No child is started any more."""


class CurrentChild:
    """The one child that runs now, if any. ``stop`` and ``hurry`` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def spawn(self, spawn: Callable[[], Child]) -> Child:
        """Spawns the next child: ``stop`` either sees it, or keeps it from being spawned.

        Raises:
            Stopped: it was kept from it.
            OSError: as ``Child``.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            self._child = spawn()
            return self._child

    def stop(self) -> None:
        """Stops the child that runs, and keeps others from being spawned. Returns when a spawn that goes on is over."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.stop("stopped")

    def hurry(self) -> None:
        """Cuts short the grace of a child that is being stopped."""
        with self._lock:
            if self._child is not None:
                self._child.hurry()
