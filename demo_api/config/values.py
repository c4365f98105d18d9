"""Reads the text of a setting that is more than a number or a word; what cannot be used is a ValueError."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MIN_KEY = 16
_KEY = re.compile(rf"[A-Za-z0-9._~+/=-]{{{_MIN_KEY},256}}")
_HOST_NAME = re.compile(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+")
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?P<port>:[1-9][0-9]{0,4})?"
)
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_ENVIRONMENT_ENTRY = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class DeviceSetting:
    """A device as ``DEMO_API_DEVICES`` has it.

    Attributes:
        name: its name in the ledger, and of its lock files.
        environment: what selects it, such as ``TT_VISIBLE_DEVICES``.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_keys(words: Iterable[str]) -> tuple[str, ...]:
    """The keys among some words; blanks around them, and words of nothing else, do not count.

    Raises:
        ValueError: there is none, or one is too short or has other characters than keys have. It names none of them.
    """
    keys = _stripped(words)
    if not keys:
        raise ValueError("it has no keys")
    for number, key in enumerate(keys, 1):
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"key {number} is not {_MIN_KEY} to 256 letters, digits and . _ ~ + / = - "
                "(`openssl rand -hex 24` makes a good one)"
            )
    return keys


def key(text: str) -> str:
    """One API key."""
    (key,) = parse_keys([text])
    return key


def hosts(text: str) -> tuple[str, ...]:
    """Host names, separated by commas."""
    names = _stripped(text.lower().split(","))
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a host name such as demo.example.com, without scheme and port")
    return names


def origins(text: str) -> tuple[str, ...]:
    """Origins as a browser writes them, separated by commas."""
    origins = _stripped(text.split(","))
    for origin in origins:
        # As a browser writes it: no path, no "*", the host in lower case, no port that the scheme has anyway.
        match = _ORIGIN.fullmatch(origin)
        if not match or (match["scheme"], match["port"]) in (("http", ":80"), ("https", ":443")):
            raise ValueError(f"{origin!r} is not an origin such as http://127.0.0.1:8080, as a browser writes it")
    return origins


def _stripped(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word.strip() for word in words if word.strip())


def devices(text: str) -> tuple[DeviceSetting, ...]:
    """Reads ``name NAME=VALUE ...; name NAME=VALUE ...``, quoted as for a shell; or ``none``."""
    if text.strip() == "none":
        return ()
    devices = tuple(_device(*shlex.split(part)) for part in text.split(";") if part.strip())
    names = {device.name for device in devices}
    if not names or len(names) < len(devices):
        raise ValueError("it must name at least one device, and each only once")
    return devices


def _device(name: str, *pairs: str) -> DeviceSetting:
    if not _DEVICE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a device name: 1 to 32 letters, digits, '_' or '-'")
    for pair in pairs:
        if not _ENVIRONMENT_ENTRY.fullmatch(pair):
            raise ValueError(f"{pair!r} is not NAME=VALUE")
    return DeviceSetting(name, dict(pair.split("=", 1) for pair in pairs))


def postgresql(text: str) -> str:
    """The URL of a PostgreSQL database."""
    if not re.match("postgres(ql)?://", text):
        raise ValueError("it does not begin with postgresql://")
    return text


def command(text: str) -> str:
    """A command with its arguments, quoted as for a shell."""
    if not shlex.split(text):
        raise ValueError("it names no program")
    return text


def power_of_two(number: int) -> int:
    """The number, if tt-metal can pad to it."""
    # tt-metal pads a prompt to the next one, and that must fit too.
    if number & (number - 1):
        raise ValueError("it is not a power of two")
    return number


def absolute(path: Path) -> Path:
    """The path from the root, without a tilde."""
    # Nobody expands a quoted "~" for the demo, and the child runs in another directory than ours.
    try:
        return Path(os.path.abspath(path.expanduser()))
    except RuntimeError as error:  # ~nobody
        raise ValueError(error) from None


def users_folder(path: Callable[[str], Path]) -> Path:
    """The user's folder for our files of this kind; where there is no home, a path that nobody can make or use.

    A container's user may have neither HOME nor an entry in passwd. Only what needs the folder is to fail then.
    """
    nowhere = Path("/dev/null/HOME-is-not-set/demo-api")
    try:
        found = path("demo-api")
    except RuntimeError:  # of platformdirs 4.5 and later; an earlier one leaves the tilde
        return nowhere
    return found if found.is_absolute() else nowhere
