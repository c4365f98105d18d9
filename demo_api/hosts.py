"""Which names and addresses are this machine's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def is_loopback(name: str) -> bool:
    """Whether it is ``localhost``, or an address that no other machine can reach."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_ours(header: str, names: Collection[str]) -> bool:
    """Whether a request with this header ``Host`` is for us: for loopback, or one of the names, with any port."""
    found = _HOST.fullmatch(header)
    return found is not None and (is_loopback(found[1]) or found[1].lower() in names)
