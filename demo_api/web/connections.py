"""As many connections as there are descriptors for, and what happens to one more."""

from __future__ import annotations

import resource
from collections import Counter

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


def make_room(channels: list[HTTPChannel], most: int) -> None:
    """Closes a connection if there are too many: of the address that has most of them, the one that is idle longest."""
    staying = [channel for channel in channels if not channel.will_close]
    # What waits for an answer, or is being sent one, stays. Its number is bounded by the threads.
    idle = [channel for channel in staying if not channel.requests and not channel.total_outbufs_len]
    if len(staying) > most and idle:
        of_address = Counter(channel.addr[0] for channel in staying)
        loser = max(idle, key=lambda channel: (of_address[channel.addr[0]], -channel.last_activity))
        loser.will_close = True  # in the loop's next turn: in this one its number could become another's
