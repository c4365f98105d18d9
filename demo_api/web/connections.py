"""As many connections as there are descriptors for, and what happens to one more."""

from __future__ import annotations

import resource
from typing import Any

from waitress.channel import HTTPChannel

from demo_api.errors import SetupError

_RESERVED = 96
"""Descriptors for everything else: the ledger's connections, locks, what a child prints, logs that are read."""

_LEAST = 32
"""Connections with which a server makes sense."""


def affordable(wanted: int) -> int:
    """How many connections this process can have, up to so many; raises its own limit of descriptors, if that helps.

    Raises:
        SetupError: too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _RESERVED:
        soft = wanted + _RESERVED if hard == resource.RLIM_INFINITY else min(hard, wanted + _RESERVED)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - _RESERVED)
    if most < _LEAST:
        raise SetupError(
            f"A server needs {_LEAST + _RESERVED} open files, and this process may have {soft}.",
            next_step="Raise the limit (`ulimit -n`, LimitNOFILE= of systemd, --ulimit nofile= of Docker).",
        )
    return most


class Sockets(dict[int, Any]):
    """All that waitress's loop looks at. One client too many takes the place of the one that has been idle longest.

    Else idle clients could keep out everybody, also who asks whether the server lives.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, fd: int, added: Any) -> None:
        super().__setitem__(fd, added)
        if len(self) > self._most:
            idle = [each for each in self.values() if each is not added and _is_idle(each)]
            if idle:
                min(idle, key=lambda channel: channel.last_activity).handle_close()


def _is_idle(each: Any) -> bool:
    return isinstance(each, HTTPChannel) and not (each.requests or each.total_outbufs_len)
