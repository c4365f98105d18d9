"""How long a run usually takes, by earlier ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from demo_api.messages.health import Estimate

FEWEST_RUNS = 5
"""Fewer say nothing of the next one."""

MOST_RUNS = 20
"""Older ones may have run on another machine, or beside other work."""


def estimate(seconds: Sequence[float]) -> Estimate | None:
    """The range in which 8 of 10 earlier runs took their time.

    Args:
        seconds: how long each of them took from its start to its end.

    Returns:
        None if they are fewer than ``FEWEST_RUNS``.
    """
    if len(seconds) < FEWEST_RUNS:
        return None
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    low, high = round(tenths[0], 3), round(tenths[-1], 3)
    return {"low_seconds": low, "high_seconds": high, "quantiles": [0.1, 0.9], "runs": len(seconds)}
