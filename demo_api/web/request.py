"""What a route reads of the request that it answers."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from demo_api.config import Settings
from demo_api.errors import BadRequest, TooManyWaiting

logger = logging.getLogger(__name__)

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def json_body() -> bytes:
    """The body, which says that it is JSON."""
    if not request.is_json:
        raise UnsupportedMediaType()
    return request.get_data(cache=False)


def idempotency_key() -> str | None:
    """The header; None if it is not there.

    Raises:
        BadRequest: it is there and wrong.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise BadRequest(
            "The header Idempotency-Key is wrong: it is 1 to 255 visible ASCII characters.", field="Idempotency-Key"
        )
    return key


def last_event_id() -> int:
    """After which event a stream is to go on."""
    given = {"after": request.args.get("after"), "Last-Event-ID": request.headers.get("Last-Event-ID")}
    for name, text in given.items():
        if text is not None and not re.fullmatch("[0-9]{1,9}", text):
            raise BadRequest(f"The last event's id, '{name}', is wrong: it is a number.", field=name)
    return int(given["after"] or given["Last-Event-ID"] or 0)


def client_is_gone(settings: Settings) -> Callable[[], bool]:
    """Tells whether the client of this request has hung up, if that is to be looked at."""
    # Only waitress can tell. Elsewhere nobody is ever known to be gone.
    if settings.cancel_on_disconnect:
        told: Callable[[], bool] | None = request.environ.get("waitress.client_disconnected")
        if told is not None:
            return told
        logger.warning("DEMO_API_CANCEL_ON_DISCONNECT has no effect on this web server")
    return lambda: False


class WaitSlots:
    """As many clients may wait at the same time as the server has threads for."""

    def __init__(self, number: int) -> None:
        self._free = threading.BoundedSemaphore(number)

    def take(self) -> None:
        """Takes a place, to be given back with ``leave``.

        Raises:
            TooManyWaiting: there is none.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyWaiting()

    def leave(self) -> None:
        """Gives a place back."""
        self._free.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A place for as long as the block runs."""
        self.take()
        try:
            yield
        finally:
            self.leave()
