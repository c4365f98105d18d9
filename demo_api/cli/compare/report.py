"""Shows a comparison: on a terminal, as JSON, and as one self-contained page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo_api.cli.compare.comparison import DIFFERENT, NOT_COMPARED, Comparison, Figures, Pair, Part, Setting, ratio
from demo_api.cli.visible import shortened, visible

UNKNOWN = "unknown"

_SHOWN_BEFORE, _SHOWN_CHARACTERS = 24, 60
_SHOWN_PROMPT = 72

PART_NAMES = {
    "queue": "queue: waiting",
    "startup": "startup: interpreter, imports",
    "load": "load: device, weights, tokenizer",
    "prefill_compile": "compile, prefill",
    "prefill": "prefill",
    "decode_compile": "compile, decode",
    "decode": "decode",
    "teardown": "teardown: report, device closed",
    "other": "other: not in any part",
    "total": "total",
}


def as_dict(comparison: Comparison) -> dict[str, object]:
    """What ``--json`` writes: everything, unrounded. None is "unknown"."""

    def of_sides(each: Part | Setting) -> dict[str, object]:
        return {"name": each.name, **{side: getattr(each, side) for side in comparison.sides}}

    return {
        "exit_code": comparison.exit_code,
        "parameters": dict(comparison.parameters),
        "repeat": comparison.repeat,
        "urls": dict(comparison.urls),
        "settings": [{**of_sides(each), "differs": each.differs} for each in comparison.settings],
        "prompts": [_pair_as_dict(pair) for pair in comparison.pairs],
        "totals": {
            "prompts": len(comparison.timed),
            "speed_up": comparison.speed_up,
            **{side: dataclasses.asdict(comparison.total(side)) for side in comparison.sides},
        },
        "seconds_by_part": [{**of_sides(part), "extra": part.extra} for part in [*comparison.parts, comparison.whole]],
    }


def _pair_as_dict(pair: Pair) -> dict[str, object]:
    return {
        "prompt": pair.prompt,
        "verdict": pair.verdict,
        "similarity": pair.similarity,
        "first_difference": dataclasses.asdict(pair.difference) if pair.difference else None,
        "speed_up": pair.speed_up,
        **{
            side: {
                **dataclasses.asdict(replies.figures),
                "deterministic": replies.deterministic,
                "replies": [dataclasses.asdict(reply) for reply in replies.replies],
            }
            for side, replies in pair.said.items()
        },
    }


def as_html(comparison: Comparison) -> str:
    """A self-contained page, without scripts."""
    environment = Environment(
        loader=PackageLoader("demo_api.cli.compare", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=figure, times=times, share=share, visible=lambda text: visible(str(text), keep="\n")
    )
    page = environment.get_template("report.html")
    return page.render(
        comparison=comparison,
        sides=comparison.sides,
        part_names=PART_NAMES,
        headline=headline(comparison),
        answer=answer,
        notes=notes,
        unknown=UNKNOWN,
        longest_prompt=_longest(each.figures.seconds for pair in comparison.pairs for each in pair.said.values()),
        longest_part=_longest(getattr(part, side) for part in comparison.parts for side in comparison.sides),
    )


def _longest(seconds: Iterable[float | None]) -> float:
    return max((each for each in seconds if each is not None), default=0.0)


def print_report(comparison: Comparison, console: Console) -> None:
    """Prints tables that fit 80 columns, and what needs words under them."""
    console.print(_prompts_table(comparison))
    for line in _remarks(comparison):
        console.print(line)
    if comparison.timed:
        console.print(_parts_table(comparison))
    console.print(_settings_table(comparison))
    console.print(Text(headline(comparison), style="bold"))


def _prompts_table(comparison: Comparison) -> Table:
    table = _table("Same prompts, same parameters", caption=_sent(comparison.parameters, comparison.repeat))
    table.add_column("#", justify="right")
    table.add_column("prompt and answers", ratio=1, overflow="fold")
    for name in ("server", "tokens", "seconds", "tok/s", "ttft ms", "speed-up"):
        table.add_column(name, justify="left" if name == "server" else "right", no_wrap=True)
    for number, pair in enumerate(comparison.pairs, 1):
        prompt = shortened(visible(pair.prompt), _SHOWN_PROMPT)
        first = Text(f"{prompt}\n").append(answer(pair), style=_STYLES.get(pair.verdict, "green"))
        cells = _cells({side: replies.figures for side, replies in pair.said.items()})
        table.add_row(Text(str(number)), first, *cells, Text(times(pair.speed_up)), end_section=True)
    counted = f"total of {len(comparison.timed)} of {len(comparison.pairs)} prompts (ttft: median)"
    cells = _cells({side: comparison.total(side) for side in comparison.sides})
    table.add_row(Text(), Text(counted, style="bold"), *cells, Text(times(comparison.speed_up), style="bold"))
    return table


_STYLES = {DIFFERENT: "yellow", NOT_COMPARED: "red"}


def _cells(figures: Mapping[str, Figures]) -> list[Text]:
    columns = [list(figures)]
    columns.append([figure(each.tokens, 1) for each in figures.values()])
    columns.append([figure(each.seconds, 3) for each in figures.values()])
    columns.append([figure(each.tokens_per_second, 1) for each in figures.values()])
    columns.append([figure(each.ttft_ms, 0) for each in figures.values()])
    return [Text("\n".join(column)) for column in columns]


def _remarks(comparison: Comparison) -> list[Text]:
    lines = []
    for number, pair in enumerate(comparison.pairs, 1):
        parting = [f"{side}: {_around(pair, side)}" for side in ("demo", "direct")] if pair.difference else []
        for line in [*parting, *notes(pair)]:
            lines.append(Text(f"{number:2}  ").append(visible(line)))
    return lines


def _around(pair: Pair, side: str) -> str:
    """The part of a text around the first difference."""
    text, character = pair.said[side].text or "", pair.difference.character if pair.difference else 1
    begin = max(0, character - 1 - _SHOWN_BEFORE)
    end = begin + _SHOWN_CHARACTERS
    return ("..." if begin else "") + text[begin:end] + ("..." if end < len(text) else "")


def _parts_table(comparison: Comparison) -> Table:
    table = _table("Where the time went, in seconds")
    table.add_column("part", ratio=1)
    for name in (*comparison.sides, "extra", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in [*comparison.parts, comparison.whole]:
        table.add_row(
            Text(PART_NAMES[part.name]),
            *(Text(figure(getattr(part, side), 3)) for side in comparison.sides),
            Text(figure(part.extra, 3)),
            Text(share(part.extra, comparison.whole.extra)),
            style="bold" if part.name == "total" else "",
        )
    return table


def _settings_table(comparison: Comparison) -> Table:
    table = _table("Settings that the servers report")
    for name in ("setting", *comparison.sides, ""):
        table.add_column(name, overflow="fold")
    for each in comparison.settings:
        told = [getattr(each, side) or UNKNOWN for side in comparison.sides]
        cells = [each.name, *told, "differs" if each.differs else ""]
        table.add_row(*(Text(visible(cell)) for cell in cells), style="bold" if each.differs else "")
    return table


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=Text(f"\n{title}", style="bold"),
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.HORIZONTALS,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        expand=True,
    )


def headline(comparison: Comparison) -> str:
    """The verdict in one sentence, such as ``8 prompts: 7 same, 1 different; the demo took 9.1 times as long.``"""
    verdicts = [pair.verdict for pair in comparison.pairs]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts)))
    plural = "prompt" if len(verdicts) == 1 else "prompts"
    took, with_kept = comparison.speed_up, ""
    if took and "kept" in comparison.sides:
        kept = ratio(comparison.total("kept").seconds, comparison.total("direct").seconds)
        with_kept = f", and {kept:.1f} times with its model kept" if kept else ""
    slower = f"; the demo took {took:.1f} times as long{with_kept}" if took else ""
    return f"{len(verdicts)} {plural}: {counts}{slower}."


def answer(pair: Pair) -> str:
    """What became of one prompt, such as ``different at character 12, word 3; similarity 0.871``."""
    if pair.difference is None or pair.similarity is None:
        return pair.verdict
    where = f"at character {pair.difference.character}, word {pair.difference.word}"
    return f"{pair.verdict}, first {where}; similarity {_rounded_down(pair.similarity)}"


def _rounded_down(value: float) -> str:
    return f"{math.floor(value * 1000) / 1000:.3f}"  # what differs never shows as 1.000


def notes(pair: Pair) -> list[str]:
    """What a reader of one prompt's figures should know: errors, and answers that change."""
    found = []
    if pair.kept_similarity is not None and pair.kept_similarity < 1:
        found.append(f"the kept model's answer is not the demo's; similarity {_rounded_down(pair.kept_similarity)}")
    for side, replies in pair.said.items():
        found += [f"{side} failed: {error}" for error in replies.errors]
        if replies.deterministic is False:
            different = len(set(replies.texts))
            found.append(f"{side} is not deterministic: {different} different answers in {len(replies.texts)}")
    return found


def figure(value: float | None, places: int) -> str:
    """A number with at most so many places, or a dash for what is unknown."""
    if value is None:
        return "-"
    return f"{value:.0f}" if places <= 1 and value == int(value) else f"{value:.{places}f}"


def times(value: float | None) -> str:
    """A speed-up, such as ``9.1x``."""
    return "-" if value is None else f"{value:.1f}x"


def share(extra: float, whole: float) -> str:
    """Per cent of the demo's extra time; a dash where it has none."""
    return f"{extra / whole:.0%}" if whole > 0 else "-"


def _sent(parameters: Mapping[str, object], repeat: int) -> str:
    sent = ", ".join(f"{name} {'none' if value is None else value}" for name, value in parameters.items())
    return f"sent to all: {sent}" + (f"; medians of {repeat} repeats" if repeat > 1 else "")
