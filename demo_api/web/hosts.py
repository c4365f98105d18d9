"""Which names and addresses are this machine's own.

Flask's ``TRUSTED_HOSTS`` is not used: it knows names only, and 127.0.0.0/8 is a network.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

_NAME = re.compile(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+")
_HOST = re.compile(rf"({_NAME.pattern})(?::[0-9]{{1,5}})?")


def split_names(text: str) -> list[str]:
    """The names of a list with commas, as a header ``Host`` is compared with them.

    Raises:
        ValueError: one of them is none: it has a scheme or a port.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name such as demo.example.com, without scheme and port")
    return names


def is_loopback(name: str) -> bool:
    """Whether it is ``localhost``, or an address that no other machine can reach."""
    if name.lower() == "localhost":
        return True
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    # A socket for both families writes 127.0.0.1 as ::ffff:127.0.0.1, which is loopback for Python 3.13 and later only.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_ours(header: str, names: Collection[str]) -> bool:
    """Whether a request with this header ``Host`` is for us: for loopback, or one of the names, with any port."""
    found = _HOST.fullmatch(header)
    return found is not None and (is_loopback(found[1]) or found[1].lower() in names)
