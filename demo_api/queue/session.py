"""A process's own connection to PostgreSQL: by it the others see that the process lives, and it hears what they did."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from demo_api.errors import DemoApiError, LedgerUnavailable, SetupError

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

QUEUED, CHANGED, CANCELLED = "demo_api_queued", "demo_api_changed", "demo_api_cancelled"
"""Channels: a run waits (payload: its pool); a run has changed; one was cancelled (payload: its batch)."""

BEAT_SECONDS = 1.0
"""How often the session shows that it lives, and its process looks whether it has missed a notification."""

_CLOSE_SECONDS = 2.0

_OLDEST = 14
"""PostgreSQL's version that has ``idle_session_timeout``."""


class Session:
    """One connection, made anew whenever it is lost. ``start`` and ``close`` may be called from any thread.

    PostgreSQL ends a connection that shows no life for ``timeout`` seconds. With it falls the lock that it holds, so
    the others see that the process is suspended or cut off. A process that is killed loses it at once.

    Args:
        url: of the database. Between it and PostgreSQL there must be no pooler.
        timeout: seconds.
        heard: called with a channel and a payload, on the session's thread; also for each channel, with an empty
            payload, whenever something was missed: after each connect.

    Raises:
        SetupError: it cannot be used for this: an older PostgreSQL, or a pooler.
        LedgerUnavailable: PostgreSQL cannot be reached now.
    """

    def __init__(self, url: str, *, timeout: float, heard: Callable[[str, str], None]) -> None:
        self._url = url
        self._timeout = timeout
        self._heard = heard
        self._enlist: Callable[[int | None], int] | None = None
        self._noted: Callable[[int | None], None] = lambda number: None
        self._number: int | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._connect().close()

    def start(
        self,
        enlist: Callable[[int | None], int] | None = None,
        noted: Callable[[int | None], None] = lambda number: None,
    ) -> None:
        """Begins to live, once.

        Args:
            enlist: of a worker, at each connect: writes it down, and returns its number; it gets that of before.
            noted: called with that number when the session has its lock, and with None when it may have lost it.
        """
        if self._thread is None:
            self._enlist, self._noted = enlist, noted
            self._closing, self._awake = socket.socketpair()  # not before: a server may fork first
            self._thread = threading.Thread(target=self._work, name="session", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the connection, and with it the lock."""
        self._closed.set()
        if self._thread is not None:
            self._awake.close()
            self._thread.join(_CLOSE_SECONDS)  # where the network is cut, it waits for an answer

    def _work(self) -> None:
        logged = ""
        with selectors.DefaultSelector() as waiting, self._closing:
            waiting.register(self._closing, selectors.EVENT_READ)
            while not self._closed.is_set():
                try:
                    with self._connect() as connection:
                        self._live(connection, waiting)
                except Exception as error:  # it is tried again every second, whatever went wrong
                    if str(error) != logged:
                        logger.warning("%s", error, exc_info=not isinstance(error, DemoApiError))
                    logged = str(error)
                finally:
                    self._noted(None)
                self._closed.wait(BEAT_SECONDS)

    def _live(self, connection: psycopg.Connection[tuple[Any, ...]], waiting: selectors.BaseSelector) -> None:
        with _translated_errors():
            for channel in (QUEUED, CHANGED, CANCELLED):
                connection.execute(f"LISTEN {channel}")
            self._take_lock(connection)
        descriptor = connection.fileno()
        waiting.register(descriptor, selectors.EVENT_READ)
        try:
            for channel in (QUEUED, CHANGED, CANCELLED):
                self._heard(channel, "")
            connection.add_notify_handler(lambda notice: self._heard(notice.channel, notice.payload))
            while not self._closed.is_set():
                with _translated_errors():
                    connection.execute("SELECT 1")  # shows life, and takes what has come
                waiting.select(BEAT_SECONDS)
        finally:
            waiting.unregister(descriptor)

    def _take_lock(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        if self._enlist is None:
            return
        self._number = self._enlist(self._number)
        # That of a connection that was cut without a word falls after the timeout; until then both count as living.
        connection.execute(
            "SELECT pg_advisory_lock(hashtext(concat('demo_api ', current_schema())), %s)", [self._number]
        )
        self._noted(self._number)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg  # here: SQLite needs none

        milliseconds = int(self._timeout * 1000)
        with _translated_errors():
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=5,
                tcp_user_timeout=milliseconds,
                application_name="demo_api",
            )
        try:
            if connection.info.server_version < _OLDEST * 10_000:
                raise SetupError(
                    f"The ledger's PostgreSQL is too old: {connection.info.server_version // 10_000}.",
                    next_step=f"Use PostgreSQL {_OLDEST} or later.",
                )
            with _translated_errors():
                connection.execute(f"SET idle_session_timeout = {milliseconds}")
                connection.execute(f"SET tcp_user_timeout = {milliseconds}")
                (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
            # A pooler greets with a number of its own. It would lose notifications and locks without an error.
            if pid != connection.info.backend_pid:
                raise SetupError(
                    "Between demo_api and PostgreSQL is a pooler, such as pgbouncer. It loses notifications and locks.",
                    next_step="Set DEMO_API_SESSION_URL to PostgreSQL's own address; all else may use the pooler.",
                )
        except BaseException:
            with suppress(psycopg.Error):
                connection.close()
            raise
        return connection


@contextmanager
def _translated_errors() -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise LedgerUnavailable(f"The ledger cannot be used now: {reason}.") from error
