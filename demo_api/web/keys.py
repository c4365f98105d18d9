"""The keys that clients send: kept as hashes, and named in logs by the beginning of the hash."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from demo_api.config.values import parse_keys
from demo_api.errors import SetupError

logger = logging.getLogger(__name__)

_NAME_CHARACTERS = 8


class Keys:
    """The keys that this server accepts. All methods may be called from any thread.

    Args:
        keys: those of the settings.
        file: one key a line; lines that begin with ``#`` do not count. It is read again when it has changed.

    Raises:
        SetupError: the file cannot be used. Later, when it was changed, that is logged, and the old keys stay.
    """

    def __init__(self, keys: Iterable[str], file: Path | None) -> None:
        self._set_keys = [_hash(key) for key in keys]
        self._file = file
        self._lock = threading.Lock()
        self._stamp = _stamp(file) if file else None
        self._file_keys = _read(file) if file else []

    @property
    def are_needed(self) -> bool:
        """Whether a client must send one."""
        return bool(self._set_keys or self._file)

    def name(self, key: str) -> str | None:
        """The name of a key by which logs know it: the beginning of its hash. None: it is none of ours."""
        self._read_again_if_changed()
        asked, found = _hash(key), False
        for known in self._set_keys + self._file_keys:  # every one, so that the time tells nothing
            found |= hmac.compare_digest(known, asked)
        return asked.hex()[:_NAME_CHARACTERS] if found else None

    def _read_again_if_changed(self) -> None:
        if self._file is None:
            return
        with self._lock:
            try:
                stamp = _stamp(self._file)
                if stamp == self._stamp:
                    return
                self._stamp = stamp
                self._file_keys = _read(self._file)
                logger.info("%d keys were read from %s", len(self._file_keys), self._file)
            except SetupError as error:
                logger.error("%s The keys that were read before stay.", error)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # st_mtime_ns would miss a change of who may read the file.
    return status.st_ino, status.st_ctime_ns, status.st_size


def _read(file: Path) -> list[bytes]:
    try:
        with file.open(encoding="utf-8") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise SetupError(
                    f"The file of keys {file} can be read by other users.",
                    next_step=f"Run `chmod 600 {file}`, and create new keys if somebody may have read these.",
                )
            keys = parse_keys(line for line in opened if not line.lstrip().startswith("#"))
            return [_hash(key) for key in keys]
    except OSError as error:
        reason = error.strerror or "it is no file"
    except ValueError as error:
        reason = "it is not text" if isinstance(error, UnicodeError) else str(error)
    raise SetupError(
        f"The file of keys {file} cannot be used: {reason}.",
        next_step="Write keys into it, one per line, readable only by the server's user, or unset DEMO_API_KEYS_FILE.",
    )
