"""Reads what routes need of a request: the JSON body, the headers, whether the client is still there."""

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
from demo_api.messages import in_utf8
from demo_api.web.openapi.schemas import JsonObject

logger = logging.getLogger(__name__)

IDEMPOTENCY_KEY: JsonObject = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Sent again with the same request, it gives the first run again: so one whose answer was lost can "
    "be repeated.",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    "example": "7f3d0c52",
}
_EVENT_NUMBER = {"type": "string", "pattern": "^[0-9]{1,9}$"}
LAST_EVENT_ID: JsonObject = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The number of the last event that the client has; browsers send it by themselves.",
    "schema": _EVENT_NUMBER,
}
AFTER: JsonObject = {
    "name": "after",
    "in": "query",
    "description": "The same, for clients that set no headers.",
    "schema": _EVENT_NUMBER,
}


def json_body() -> bytes:
    """The body, in UTF-8.

    Raises:
        UnsupportedMediaType: its Content-Type is not JSON.
        BadRequest: it is compressed, or in no encoding of Unicode.
    """
    if not request.is_json:  # nor is a form taken for JSON: a browser lets any page send one here
        raise UnsupportedMediaType(f"The Content-Type is {request.mimetype[:100] or 'missing'}, and must say JSON.")
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise BadRequest(
            f"The body is compressed (Content-Encoding: {encoding[:100]}), which the server does not read.",
            next_step="Send it uncompressed, without that header.",
            field="Content-Encoding",
        )
    try:
        return in_utf8(request.get_data(cache=False))
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.", next_step="Send JSON in UTF-8.") from None


def idempotency_key() -> str | None:
    """The header ``Idempotency-Key``; None without one.

    Raises:
        BadRequest: it is not 1 to 255 visible ASCII characters.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY["schema"]["pattern"], key):
        raise BadRequest(
            "The header Idempotency-Key is wrong: it is 1 to 255 visible ASCII characters.", field="Idempotency-Key"
        )
    return key


def last_event_id() -> int:
    """The number of the event after which a stream resumes; 0 for all of it.

    Raises:
        BadRequest: the header or the parameter is not a number.
    """
    given = {"after": request.args.get("after"), "Last-Event-ID": request.headers.get("Last-Event-ID")}
    for name, text in given.items():
        if text is not None and not re.fullmatch(_EVENT_NUMBER["pattern"], text):
            raise BadRequest(f"The last event's ID, '{name}', must be a number.", field=name)
    return int(given["after"] or given["Last-Event-ID"] or 0)


def client_is_gone(settings: Settings) -> Callable[[], bool]:
    """A function that says whether this request's client has hung up; it says no where that is to change nothing."""
    if settings.cancels_on_disconnect:
        disconnected: Callable[[], bool] | None = request.environ.get("waitress.client_disconnected")
        if disconnected is not None:
            return disconnected
        # Only waitress can tell. Elsewhere nobody is known to be gone before something is sent.
        if settings.cancel_on_disconnect:
            logger.warning("DEMO_API_CANCEL_ON_DISCONNECT has an effect on streams only on this web server")
    return lambda: False


class WaitSlots:
    """Lets as many clients wait at the same time as the server has threads for."""

    def __init__(self, number: int) -> None:
        self._free = threading.BoundedSemaphore(number)

    def take(self) -> None:
        """Takes a slot, which ``leave`` frees.

        Raises:
            TooManyWaiting: none is free.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyWaiting()

    def leave(self) -> None:
        """Frees a slot."""
        self._free.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Takes a slot for as long as the block runs."""
        self.take()
        try:
            yield
        finally:
            self.leave()
