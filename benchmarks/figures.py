"""What a benchmark found: a line for people, and a row of docs/performance.md if the runner asks for it."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

VARIABLE = "BENCHMARK_FIGURES"
"""Names the file to which figures are appended, a line of JSON each."""

OTHER = "the other checkout"

Spread = tuple[float, float, int]
"""The smallest, the largest, and how many there were."""


@dataclass(frozen=True)
class Figure:
    """A median, alone or beside that of an anchor: the same thing done by something else. Unknown is null.

    Attributes:
        ratio: the median of the ratios to the anchor of the same round, which is not the ratio of the medians.
        goal: the most that the figure should be, or the least if more is better; ``ratio_goal`` likewise.
    """

    what: str
    value: float | None
    unit: str = ""
    spread: Spread | None = None
    beside: str = ""
    beside_value: float | None = None
    ratio: float | None = None
    ratio_spread: Spread | None = None
    goal: float | None = None
    ratio_goal: float | None = None
    more_is_better: bool = False

    def value_text(self) -> str:
        return _text(self.value, self.unit, self.spread if self.ratio is None else None)

    def beside_text(self) -> str:
        return f"{self.beside}: {_text(self.beside_value, self.unit)}" if self.beside else ""

    def ratio_text(self) -> str:
        return _text(self.ratio, "", self.ratio_spread) if self.beside else ""

    def goal_text(self) -> str:
        bound = "at least" if self.more_is_better else "at most"
        goals = [f"{bound} {self.goal:,g} {self.unit}".rstrip()] if self.goal is not None else []
        goals += [f"ratio {bound} {self.ratio_goal:g}"] if self.ratio_goal is not None else []
        return ", ".join(goals)

    def __str__(self) -> str:
        parts = {"": self.beside_text(), "ratio ": self.ratio_text(), "goal ": self.goal_text()}
        return "; ".join([f"{self.what}: {self.value_text()}", *(name + text for name, text in parts.items() if text)])


def report(
    what: str,
    ours: Sequence[float],
    unit: str = "",
    *,
    beside: str = "",
    theirs: Sequence[float] = (),
    goal: float | None = None,
    ratio_goal: float | None = None,
    more_is_better: bool = False,
) -> Figure:
    """Prints a figure, and hands it over.

    Arguments:
        ours: what was measured, once a round.
        beside: the anchor's name.
        theirs: what was measured of it in the same rounds; empty if it is not on this machine.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)] if all(theirs) and theirs else []
    figure = Figure(
        what,
        _median(ours),
        unit,
        _spread(ours),
        beside,
        _median(theirs),
        _median(ratios),
        _spread(ratios),
        goal,
        ratio_goal,
        more_is_better,
    )
    print(figure, flush=True)
    if file := os.environ.get(VARIABLE):
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(figure)) + "\n")
    return figure


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values and not any(map(math.isnan, values)) else None


def _spread(values: Sequence[float]) -> Spread | None:
    return (min(values), max(values), len(values)) if len(values) > 1 and _median(values) is not None else None


def _text(value: float | None, unit: str = "", spread: Spread | None = None) -> str:
    if value is None:
        return "-"
    several = f" ({number(spread[0])} to {number(spread[1])} of {spread[2]})" if spread else ""
    return f"{number(value)} {unit}".rstrip() + several


def number(value: float) -> str:
    """Three digits of it; whole numbers, and those from 100 on, without a fraction."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:#.3g}".rstrip(".")
