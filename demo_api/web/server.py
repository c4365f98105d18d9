"""The HTTP server: waitress, with a thread for each client that waits.

Waitress: one process, threads, no limit on how long an answer may take, and it reads slow bodies without a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.trigger import trigger

from demo_api.config import Settings
from demo_api.errors import SetupError
from demo_api.web.access import check_exposure
from demo_api.web.channel import channel_class
from demo_api.web.connections import affordable
from demo_api.web.dispatcher import Dispatcher

_SPARE_THREADS = 8
_SPARE_CONNECTIONS = 1000
_SPARE_ENTRIES = 32
"""Waitress counts its own entries too, and connections that are about to be closed. Ours make room before that."""

_ACCEPTED_AT_ONCE = 16
"""Fewer than the spare entries: room is made for them between two rounds."""

_MAX_BODY = 16 * 2**20
"""Of all that is read; DEMO_API_MAX_BODY may be as much."""

_IDLE_SECONDS = 60
"""How long a connection may send nothing, and wait for nothing."""

_FLUSH_SECONDS = 2.0


class HttpServer:
    """An application on a port.

    Args:
        app: the application.
        settings: ``host``, ``port``, ``max_body`` and ``max_waiting`` are used.

    Raises:
        SetupError: the address cannot be used, others could reach it and nothing keeps them out, or too few files may
            be open. The port is bound by then, but nothing is answered before ``run``.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        check_exposure(settings)
        threads = settings.max_waiting + _SPARE_THREADS  # the others answer /health
        connections = affordable(threads + _SPARE_CONNECTIONS)
        self._sockets: dict[int, Any] = {}  # waitress keeps all that its loop looks at in here
        try:
            self._waitress = waitress.create_server(
                app,
                map=self._sockets,
                host=settings.host,
                port=settings.port,
                _dispatcher=Dispatcher(threads),
                connection_limit=connections + _SPARE_ENTRIES,
                channel_timeout=_IDLE_SECONDS,
                cleanup_interval=_IDLE_SECONDS // 4,
                max_request_body_size=_MAX_BODY,  # a longer one is refused unread, and not by the application
                asyncore_use_poll=True,  # select() knows no descriptor over 1023
                ident=None,
                clear_untrusted_proxy_headers=True,
                # Looking for what a client sends while it waits is the only way to see that it has hung up. But one
                # that has only ended its sending, as netcat does, would then be taken for gone.
                channel_request_lookahead=int(settings.cancels_on_disconnect),
            )
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise SetupError(
                f"The address {settings.host}:{settings.port} cannot be used: {reason}.",
                next_step="Stop the program that uses it, or choose another with --host and --port.",
            ) from None
        for listener in [each for each in self._sockets.values() if isinstance(each, BaseWSGIServer)]:
            listener.channel_class = channel_class(app, max_body=settings.max_body, most=connections)
            listener.handle_accept = partial(_accept_all, listener, listener.handle_accept)

    @property
    def url(self) -> str:
        """Where it listens; the first address where a name has several."""
        listeners = getattr(self._waitress, "effective_listen", None)
        host, port = listeners[0] if listeners else (self._waitress.effective_host, self._waitress.effective_port)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Answers requests until ``close``."""
        self._waitress.run()

    def close(self) -> None:
        """Sends the answers that were just given, and ends ``run``, which is on another thread."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._is_sending() and time.monotonic() < deadline:
            time.sleep(0.02)  # waitress tells nobody when it has sent an answer
        self._waitress.task_dispatcher.shutdown()
        waker = next(each for each in list(self._sockets.values()) if isinstance(each, trigger))
        waker.pull_trigger(partial(wasyncore.close_all, self._sockets))  # in the loop's thread, and the loop ends

    def _is_sending(self) -> bool:
        channels = [each for each in list(self._sockets.values()) if isinstance(each, HTTPChannel)]
        return any(channel.requests or channel.total_outbufs_len for channel in channels)


def _accept_all(listener: BaseWSGIServer, accept_one: Callable[[], None]) -> None:
    """Accepts all clients that have come. Waitress accepts one, and looks at all connections again before the next."""
    for _ in range(_ACCEPTED_AT_ONCE):
        before = len(listener._map)
        accept_one()
        if len(listener._map) == before:
            return
