"""What a comparison looks like: on a terminal, as JSON, and as a page that a parser reads."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.browser import chromium

from demo_api.cli.compare.comparison import PARTS, SIDES, Comparison, Pair, Replies, Reply, Setting
from demo_api.cli.compare.report import (
    PART_NAMES,
    answer,
    as_dict,
    as_html,
    figure,
    print_report,
    share,
    times,
)
from demo_api.cli.compare.text_difference import marked
from demo_api.cli.visible import visible

HOSTILE = "\x1b[31m<script>alert(1)</script>\x07 [bold]x[/bold] &amp; \u202ehidden\u202c \ud800 :bee: {{ 7 * 7 }}"
TYPED = (
    "<script>alert(1)</script>",
    "[bold]x[/bold]",
    "&amp;",
    ":bee:",
    "{{ 7 * 7 }}",
    r"\x1b[31m",
    r"\u202e",
    r"\ud800",
)


def said(*texts: str, **figures: object) -> Replies:
    return Replies([Reply(response=text, engine="demo", **figures) for text in texts])  # type: ignore[arg-type]


def hostile() -> Comparison:
    """A comparison in which everything that a person, a model or a server can say is hostile, and long."""
    long = HOSTILE + " word" * 200 + "x" * 300
    parts = dict.fromkeys(PARTS, 12345.678)
    figures = {"seconds": 123456.789, "tokens": 2048, "tokens_per_second": 12345.6, "ttft_ms": 123456.0, "parts": parts}
    failed = Replies([Reply(error=long), *said(long).replies])
    pairs = [Pair(long, said(long, **figures), said(f"{long} and more", long, **figures)), Pair("a", failed, failed)]
    settings = [Setting(HOSTILE, long, None), Setting("max_seq_len", "1024", "2048")]
    return Comparison(pairs, settings, {"max_tokens": 64, "seed": None}, {"demo": "http://h/" + HOSTILE}, 3)


def printed(comparison: Comparison, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_report(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


SHOWN = {
    "plain": ("a b", "a b"),
    "an escape": ("\x1b[31m", r"\x1b[31m"),
    "a carriage return": ("a\rb", r"a\rb"),
    "a line feed": ("a\nb", r"a\nb"),
    "right to left": ("\u202eabc", r"\u202eabc"),
    "no width": ("a\u200bb", r"a\u200bb"),
    "half a character": ("\ud800", r"\ud800"),
    "no-break space": ("a\u00a0b", r"a\xa0b"),
    "beyond 16 bits": ("\U0001f41d", "\U0001f41d"),
    "accents": ("\u00e9", "\u00e9"),
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.values(), ids=SHOWN)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_is_kept_stays() -> None:
    assert visible("a\n\tb", keep="\n") == "a\n\\tb"


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_the_terminal(width: int) -> None:
    assert max(cell_len(line) for line in printed(hostile(), width).splitlines()) <= width


def test_a_terminal_is_shown_and_does_not_obey_what_was_said() -> None:
    shown = printed(hostile())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", shown)
    flat = shown.replace("\n", "").replace(" ", "")
    for typed in TYPED:
        assert typed.replace(" ", "") in flat


def test_the_terminal_tells_figures_parts_and_settings() -> None:
    demo = said("a b", seconds=6.0, tokens=12, tokens_per_second=2.0, ttft_ms=100.4, parts={"startup": 4.5})
    direct = said("a c", seconds=2.0, tokens=12, tokens_per_second=6.0, parts={"decode": 1.5})
    shown = printed(Comparison([Pair("Hello", demo, direct)], [Setting("precision", None, "bf8")], {"max_tokens": 64}))
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "1 Hello demo 12 6.000 2 100 3.0x" in lines
    assert any(line.endswith("direct 12 2.000 6 -") for line in lines)
    assert "startup: interpreter, imports 4.500 - 4.500 112%" in lines
    assert "decode - 1.500 -1.500 -38%" in lines
    assert "total 6.000 2.000 4.000 100%" in lines
    assert "precision unknown bf8" in lines
    assert lines[-1] == "1 prompt: 1 different; the demo took 3.0 times as long."


def test_a_terminal_that_knows_ascii_only_is_served_as_well() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    print_report(hostile(), Console(file=stream, width=80))


def test_what_differs_never_shows_as_1() -> None:
    pair = Pair("a", said("word " * 2000), said("word " * 2000 + "more"))
    assert answer(pair) == "different, first at character 10001, word 2001; similarity 0.999"


NUMBERS = {
    "unknown": (None, 3, "-"),
    "seconds": (1.23456, 3, "1.235"),
    "whole tokens": (12.0, 1, "12"),
    "a median of tokens": (12.5, 1, "12.5"),
    "nothing": (0.0, 3, "0.000"),
}


@pytest.mark.parametrize(("value", "places", "shown"), NUMBERS.values(), ids=NUMBERS)
def test_a_figure_is_rounded_or_a_dash(value: float | None, places: int, shown: str) -> None:
    assert figure(value, places) == shown


def test_speed_ups_and_shares_that_make_no_sense_are_dashes() -> None:
    assert (times(None), times(9.06), share(1.0, 4.0), share(1.0, 0.0), share(1.0, -1.0)) == (
        "-",
        "9.1x",
        "25%",
        "-",
        "-",
    )


def test_every_part_has_a_name() -> None:
    assert set(PART_NAMES) == {*PARTS, "other", "total"}


def test_the_json_has_everything_unrounded() -> None:
    comparison = hostile()
    report = json.loads(json.dumps(as_dict(comparison)))
    pair = report["prompts"][0]
    assert pair["prompt"] == comparison.pairs[0].prompt
    assert pair["direct"]["replies"][0]["response"].endswith("and more")
    assert (pair["demo"]["seconds"], pair["direct"]["deterministic"]) == (123456.789, False)
    assert pair["first_difference"]["character"] == len(str(comparison.pairs[0].demo.text)) + 1
    assert report["seconds_by_part"][-1] == {"name": "total", "demo": 123456.789, "direct": 123456.789, "extra": 0.0}
    assert report["settings"][1] == {"name": "max_seq_len", "demo": "1024", "direct": "2048", "differs": True}


class Page(HTMLParser):
    """What a browser would make of a page, as far as these tests ask."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.marks: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.VOID:
            return
        self.open.append("text" if dict(attrs).get("class") == "text" else tag)
        if self.open[-1] == "text":
            self.texts.append("")
        if tag == "mark" and "text" in self.open:
            self.marks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() in (tag, "text")

    def handle_data(self, data: str) -> None:
        if "text" in self.open:
            self.texts[-1] += data
        if "mark" in self.open and "text" in self.open:
            self.marks[-1] += data


def test_the_page_holds_no_scripts_and_nothing_from_elsewhere() -> None:
    page = Page(as_html(hostile()))
    assert page.open == []  # every element is closed, in order
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not attributes.keys() & {"src", "onload", "onclick", "onerror"}
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in as_html(Comparison([]))


def test_the_page_says_its_language_and_what_its_headers_are_for() -> None:
    page = Page(as_html(hostile()))
    assert page.tags[0] == ("html", {"lang": "en"})
    assert all(attributes.get("scope") for name, attributes in page.tags if name == "th")
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(attributes["href"])[1:] for name, attributes in page.tags if name == "a"} <= targets


@settings(max_examples=40)
@given(st.text(max_size=40), st.text(max_size=40))
def test_the_page_shows_both_texts_as_they_are_and_marks_what_differs(one: str, other: str) -> None:
    page = Page(as_html(Comparison([Pair("Hello", said(one), said(other))])))
    assert page.texts == [visible(one, keep="\n"), visible(other, keep="\n")]
    differs = [piece.text for side in marked(one, other) for piece in side if not piece.shared]
    assert page.marks == [visible(text, keep="\n") for text in differs]


@pytest.mark.parametrize("typed", TYPED)
def test_the_page_shows_what_was_typed(typed: str) -> None:
    source = as_html(hostile())
    texts = Page(source).texts
    assert len(texts) == 5  # of two prompts and two servers, and another answer of one
    assert all(typed in text for text in texts)
    assert "<script" not in source
    assert source.encode()  # half a character has become an escape


def test_the_page_tells_errors_other_answers_and_what_is_unknown() -> None:
    failed = Replies([Reply(error="503: The line is full.")])
    pairs = [Pair("a", said("x", seconds=1.0), failed), Pair("b", said("x", "y"), said("x", "x"))]
    source = as_html(Comparison(pairs, [Setting("precision", None, "bf8")]))
    for words in (
        "direct failed: 503: The line is full.",
        "demo is not deterministic: 2 different answers in 2",
        "another answer of this server",
        "no answer",
        "unknown",
    ):
        assert words in source
    assert Page(source).texts == ["x", "no answer", "x", "y", "x"]


@pytest.mark.parametrize("side", SIDES)
def test_a_bar_is_as_long_as_its_time(side: str) -> None:
    replies = {each: said("x", seconds=8.0 if each == side else 2.0) for each in SIDES}
    source = as_html(Comparison([Pair("a", **replies)]))
    for each in SIDES:
        width = "100.00%" if each == side else "25.00%"
        assert f'class="bar {each}" aria-hidden="true" style="width: {width}"' in source


def test_a_comparison_of_nothing_is_a_page_too() -> None:
    assert "no answer" in as_html(Comparison([Pair("a", Replies([]), Replies([]))]))


SCRIPTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</pre></td></table><svg onload=alert(3)>",
    '" onmouseover="alert(4)" style="position: fixed; inset: 0" x="',
    "<iframe srcdoc='<script>parent.alert(5)</script>'></iframe>",
    "<style>@import url(http://127.0.0.1:1/)</style>",
)


def test_a_browser_runs_nothing_of_what_was_said(tmp_path: Path) -> None:
    evil = " ".join(SCRIPTS)
    failed = Replies([Reply(error=evil)])
    pairs = [Pair(evil, said(evil), said(f"{evil} more", evil)), Pair("a", failed, said(evil))]
    report = tmp_path / "report.html"
    report.write_text(as_html(Comparison(pairs, [Setting(evil, evil, None)], {"seed": None}, {"demo": evil})))
    dialogs: list[str] = []
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.mouse.move(200, 200)
        shown = page.locator("body").inner_text()
        assert page.locator("script, img, svg, iframe, [onmouseover]").count() == 0
    assert (dialogs, asked) == ([], [report.as_uri()])
    for typed in SCRIPTS:
        assert typed in " ".join(shown.split())
