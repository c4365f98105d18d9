"""The table and the picture of docs/performance.md, made of what the benchmarks found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from figures import Figure, number

BEGIN = "<!-- `make bench` writes what is between this line -->"
END = "<!-- and this one. -->"
PICTURE = "images/performance.svg"
HEADINGS = ("what", "how measured", "figure", "beside", "ratio", "goal", "machine")


@dataclass(frozen=True)
class Measured:
    """What one benchmark found.

    Attributes:
        command: how it was measured.
        machine: where and when; empty if it was not measured.
        failed: what it said when it failed; empty if it did not.
    """

    command: str
    machine: str = ""
    figures: list[Figure] = field(default_factory=list)
    failed: str = ""


def write(page: Path, measured: list[Measured]) -> None:
    """Replaces what is between the markers of the page, and the picture beside it. Raises: ValueError: no markers."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"{page} needs one line {BEGIN!r}, and after it one line {END!r}")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    shown = f"![The figures of the table as bars]({PICTURE})"
    page.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{table(measured)}\n\n{END}{after}", encoding="utf-8")
    picture = page.parent / PICTURE
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(svg(measured), encoding="utf-8")


def table(measured: list[Measured]) -> str:
    """Markdown: the machines, and a row for each figure and each failure."""
    letters = _letters(measured)
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    for each in measured:
        how, letter = f"`{each.command}`", letters.get(each.machine, "")
        for one in each.figures:
            rows.append((one.what, how, one.value_text(), one.beside_text(), one.ratio_text(), one.goal_text(), letter))
        if reason := _reason(each):
            rows.append((reason, how, "-", "", "", "", letter))
    machines = "\n".join(f"- Machine {letter}: {machine}" for machine, letter in letters.items())
    return machines + "\n\n" + "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _letters(measured: list[Measured]) -> dict[str, str]:
    machines = dict.fromkeys(each.machine for each in measured if each.machine)
    return {machine: chr(ord("A") + position) for position, machine in enumerate(machines)}


def _reason(measured: Measured) -> str:
    if measured.failed:
        return f"failed: {measured.failed}"
    return "" if measured.figures else "not measured"


# The picture

WIDTH, ROW, TOP = 920, 34, 62
LEFT, ONE, MOST = 560, 90, 3  # where bars begin, how long that of 1.0 is, and which are cut off
STYLE = """
    .page { fill: #ffffff }
    text { fill: #1b1f24 }
    .note { fill: #57606a; font-size: 12px }
    .how { font-weight: 600 }
    .bar { fill: #0969da }
    .met { fill: #1a7f37 }
    .missed { fill: #bc4c00 }
    .one { stroke: #57606a }
    .goal { stroke: #1b1f24; stroke-width: 2.5 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      text { fill: #e6edf3 }
      .note { fill: #9ba5b0 }
      .bar { fill: #58a6ff }
      .met { fill: #3fb950 }
      .missed { fill: #f0883e }
      .one { stroke: #9ba5b0 }
      .goal { stroke: #e6edf3 }
    }
"""


def svg(measured: list[Measured]) -> str:
    """A picture: a bar for each ratio to an anchor, or to the goal where there is no anchor."""
    parts, y = [], TOP
    for each in measured:
        parts.append(f'<text class="how" x="16" y="{y}">{escape(each.command)}</text>')
        for one in each.figures:
            y += ROW
            parts += _row(one, y)
        if reason := _reason(each):
            y += ROW
            parts.append(f'<text x="16" y="{y - 8}">{escape(_cut(reason, 120))}</text>')
        y += ROW
    machines = [f"Machine {letter}: {machine}" for machine, letter in _letters(measured).items()]
    parts += [
        f'<text class="note" x="16" y="{y + 16 * line}">{escape(machine)}</text>'
        for line, machine in enumerate(machines)
    ]
    height = y + 16 * len(machines)
    line = f'<line class="one" x1="{LEFT + ONE}" y1="48" x2="{LEFT + ONE}" y2="{y - ROW}" stroke-dasharray="3 3"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif"'
        ' font-size="14" role="img" aria-labelledby="title description">\n'
        '<title id="title">What the benchmarks measured</title>\n'
        '<desc id="description">A bar for each figure: its ratio to the same thing done by something else, or to its'
        " goal where there is nothing else. A dashed line is at 1.0, a short one at the ratio's goal. The table on the"
        " page has the same figures.</desc>\n"
        f'<style>{STYLE}</style>\n<rect class="page" width="{WIDTH}" height="{height}"/>\n'
        '<text class="note" x="16" y="24">Bars: ratio to what is named beside it, or to the goal. Green: the goal is'
        f" met; orange: it is missed; blue: there is none. A bar ends at {MOST}.</text>\n"
        f'<text class="note" x="{LEFT + ONE}" y="42" text-anchor="middle">1.0</text>\n'
        f"{line}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _row(figure: Figure, y: int) -> Iterator[str]:
    beside = [figure.beside_text(), f"goal: {figure.goal_text()}" if figure.goal_text() else ""]
    note = "; ".join(filter(None, [figure.value_text(), *beside]))
    yield f'<text x="16" y="{y - 14}">{escape(_cut(figure.what, 80))}</text>'
    yield f'<text class="note" x="16" y="{y}">{escape(_cut(note, 95))}</text>'
    if (ratio := _bar(figure)) is not None:
        width = ONE * min(ratio, MOST)
        yield f'<rect class="{_class(figure)}" x="{LEFT}" y="{y - 20}" width="{width:.1f}" height="12" rx="2"/>'
        yield f'<text class="note" x="{WIDTH - 16}" y="{y - 10}" text-anchor="end">{number(ratio)}</text>'
    if figure.ratio_goal is not None:
        x = LEFT + ONE * min(figure.ratio_goal, MOST)
        yield f'<line class="goal" x1="{x:.1f}" y1="{y - 24}" x2="{x:.1f}" y2="{y - 4}"/>'


def _bar(figure: Figure) -> float | None:
    if figure.ratio is not None or figure.beside:
        return figure.ratio
    return figure.value / figure.goal if figure.value is not None and figure.goal else None


def _class(figure: Figure) -> str:
    met = [
        value >= goal if figure.more_is_better else value <= goal
        for value, goal in ((figure.value, figure.goal), (figure.ratio, figure.ratio_goal))
        if value is not None and goal is not None
    ]
    return ("met" if all(met) else "missed") if met else "bar"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
