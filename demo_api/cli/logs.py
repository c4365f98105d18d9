"""The log's formats: lines for people, or one JSON object per line. It goes to standard error."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from types import TracebackType

from demo_api.cli.visible import visible
from demo_api.config import Settings

_FIELDS = ("request_id", "run_id", "key", "client", "method", "path", "status", "seconds", "prompt")
"""Fields that a record may have beside its message; ``key`` is the name of a key."""

_LONGEST = 4000
"""Characters of a message: a client, a model or a library may have made it as long as it likes."""

_Error = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure(settings: Settings) -> None:
    """Configures the log of this process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("waitress").addFilter(OncePerSecond())
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a waiting line is our normal state
    logging.getLogger("alembic").setLevel(logging.WARNING)


class OncePerSecond(logging.Filter):
    """Drops a message that was logged less than a second ago: a failing loop repeats it thousands of times."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if record.created - self._last.get(record.getMessage(), 0.0) < 1:
            return False
        self._last = {record.getMessage(): record.created}  # the last one only: that is what a loop repeats
        return True


class Lines(logging.Formatter):
    """A line for each record, whatever it holds. What belongs to a traceback is indented, so nothing can look like a
    record that is none.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record without its traceback."""
        return _bounded(visible(super().formatMessage(record)))

    def formatException(self, ei: _Error) -> str:
        """A traceback."""
        return "\n".join(f"    {_bounded(visible(line))}" for line in super().formatException(ei).split("\n"))


class JsonLines(logging.Formatter):
    """An object for each record, in ASCII: it has no line end of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with its traceback if it has one."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _bounded(record.getMessage()),
        }
        fields |= {name: getattr(record, name) for name in _FIELDS if getattr(record, name, None) is not None}
        if record.exc_info:
            fields["exception"] = _bounded(self.formatException(record.exc_info), 10 * _LONGEST)
        return json.dumps(fields, default=str)


def _bounded(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} characters are left out)"
