"""Serves the application with waitress, and stops it so that the device is closed first.

Waitress: one process, threads, no limit on how long an answer may take, and it reads slow bodies without a thread.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType

import waitress
from flask import Flask
from waitress.server import BaseWSGIServer

from demo_api.config import Settings
from demo_api.dispatcher import Dispatcher
from demo_api.errors import SetupError

logger = logging.getLogger(__name__)

_SPARE_THREADS = 8
_FLUSH_SECONDS = 2.0


def bind(app: Flask, settings: Settings) -> BaseWSGIServer:
    """Binds the port; nothing is served before ``serve``.

    Raises:
        SetupError: the address cannot be used.
    """
    try:
        return waitress.create_server(
            app,
            host=settings.host,
            port=settings.port,
            # Each waiting /chat holds a thread; the spare ones answer /health meanwhile.
            threads=settings.max_queue + 1 + _SPARE_THREADS,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise SetupError(
            f"The address {settings.host}:{settings.port} cannot be used: {error.strerror or error}.",
            next_step="Stop the program that uses it, or choose another with --port.",
        ) from None


def serve(server: BaseWSGIServer, dispatcher: Dispatcher) -> None:
    """Serves until SIGINT or SIGTERM, then stops the child, answers who waits, and returns. Main thread only."""

    def leave() -> None:
        _wait_for_answers(server)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def on_left(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt  # waitress takes it as the end of its loop

    signal.signal(signal.SIGUSR1, on_left)
    stop_on_signals(dispatcher, then=leave)
    server.run()
    server.close()


def stop_on_signals(dispatcher: Dispatcher, *, then: Callable[[], None] = lambda: None) -> None:
    """From now on SIGINT and SIGTERM close the dispatcher: the child first, with its grace; a second one hurries it.

    Args:
        then: called when the child is gone, on another thread than the main one.
    """

    def stop() -> None:
        dispatcher.close()
        then()

    # Not in the signal handler itself: it may have interrupted a holder of the locks that closing needs.
    threads = iter([threading.Thread(target=stop, name="stopper")])

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopper = next(threads, None)
        if stopper is None:
            threading.Thread(target=dispatcher.hurry, name="hurry").start()
        else:
            logger.info("stopping; a running child closes the device first (once more to hurry)")
            stopper.start()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)


def _wait_for_answers(server: BaseWSGIServer) -> None:
    """Lets the answers that were just given leave through their sockets, for a short while."""
    tick = threading.Event()
    for _ in range(int(_FLUSH_SECONDS / 0.05)):
        if not any(channel.requests or channel.total_outbufs_len for channel in list(server.active_channels.values())):
            return
        tick.wait(0.05)
