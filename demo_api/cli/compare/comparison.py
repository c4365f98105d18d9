"""Compares what servers answered to the same prompts: texts, figures, verdict. Pure: no network, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter
from statistics import median

from demo_api.cli.compare.text_difference import Difference, Piece, first_difference, marked, similarity
from demo_api.messages import Timing

SIDES = ("demo", "kept", "direct")
"""The servers, in the order in which they are shown. ``kept`` is the demo engine with a model that stays loaded; a
comparison may do without it."""

PARTS = tuple(
    each.name.removesuffix("_seconds")
    for each in fields(Timing)
    if each.name.endswith("_seconds") and each.name != "startup_ahead_seconds"  # was over before the request came
)
"""The parts of a request's time, as ``timing`` names them without ``_seconds``."""

SAME, SIMILAR, DIFFERENT, NOT_COMPARED = "same", "similar", "different", "not compared"


@dataclass(frozen=True)
class Reply:
    """What one server said to one request: an answer or an error. None is "unknown".

    Attributes:
        response: the answer's text; None where there is an error.
        error: why there is none, in the server's own words.
        seconds: the server's ``time_seconds``.
        tokens: the server's ``tokens_generated``.
        tokens_per_second: the server's.
        ttft_ms: the engine's own time to first token, milliseconds.
        parts: seconds by name, of ``PARTS``; those that are known.
    """

    response: str | None = None
    error: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    ttft_ms: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    engine: str | None = None
    model: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Figures:
    """Tokens, seconds, tokens per second and milliseconds to the first token; None is "unknown"."""

    tokens: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    ttft_ms: float | None = None


@dataclass(frozen=True)
class Replies:
    """All that one server said to one prompt, a reply for each repeat."""

    replies: Sequence[Reply]

    @property
    def texts(self) -> list[str]:
        """The answers' texts, without the requests that failed."""
        return [reply.response for reply in self.replies if reply.response is not None]

    @property
    def text(self) -> str | None:
        """The first answer's text: the one that is compared."""
        return next(iter(self.texts), None)

    @property
    def errors(self) -> list[str]:
        """Each error once."""
        return list(dict.fromkeys(reply.error for reply in self.replies if reply.error is not None))

    @property
    def deterministic(self) -> bool | None:
        """Whether all answers have the same text; None where there are not two of them."""
        return len(set(self.texts)) == 1 if len(self.texts) > 1 else None

    @property
    def figures(self) -> Figures:
        """The median of each figure over the repeats."""
        return Figures(**{each.name: self.median(attrgetter(each.name)) for each in fields(Figures)})

    def median(self, figure: Callable[[Reply], float | None]) -> float | None:
        """The median of a figure over the replies that tell it; None where none does."""
        return _median(figure(reply) for reply in self.replies)


@dataclass(frozen=True)
class Pair:
    """One prompt with what the servers said: the demo's answer beside the direct engine's.

    Args:
        min_similarity: from which on texts that differ are ``similar`` and not ``different``.
        kept: of the demo engine with a model that stays loaded, if it was asked: its answer should be the demo's.
    """

    prompt: str
    demo: Replies
    direct: Replies
    min_similarity: float = 1.0
    kept: Replies | None = None

    @property
    def said(self) -> dict[str, Replies]:
        """What each server said, by ``SIDES``."""
        found = {"demo": self.demo, "kept": self.kept, "direct": self.direct}
        return {side: replies for side, replies in found.items() if replies is not None}

    @cached_property
    def similarity(self) -> float | None:
        """Of the two texts that are compared; None where one is missing."""
        if self.demo.text is None or self.direct.text is None:
            return None
        return similarity(self.demo.text, self.direct.text)

    @cached_property
    def difference(self) -> Difference | None:
        """Where the two texts part; None where they are the same or one is missing."""
        if self.demo.text is None or self.direct.text is None:
            return None
        return first_difference(self.demo.text, self.direct.text)

    @cached_property
    def marked(self) -> tuple[list[Piece], list[Piece]]:
        """Both texts in pieces; what is missing has none."""
        return marked(self.demo.text or "", self.direct.text or "")

    @property
    def kept_similarity(self) -> float | None:
        """Of the demo's text and that of its kept model; None where one is missing."""
        if self.demo.text is None or self.kept is None or self.kept.text is None:
            return None
        return similarity(self.demo.text, self.kept.text)

    @property
    def verdict(self) -> str:
        """``same``, ``similar`` or ``different``; ``not compared`` where any request failed."""
        if any(replies.errors or replies.text is None for replies in self.said.values()):
            return NOT_COMPARED
        least = min(each for each in (self.similarity, self.kept_similarity) if each is not None)
        if least == 1.0:
            return SAME
        return SIMILAR if least >= self.min_similarity else DIFFERENT

    @property
    def speed_up(self) -> float | None:
        """How many times as long the demo took: its seconds / the direct engine's seconds."""
        return ratio(self.demo.figures.seconds, self.direct.figures.seconds)


@dataclass(frozen=True)
class Part:
    """A part of the time, summed over prompts, in seconds; None is "unknown"."""

    name: str
    demo: float | None
    direct: float | None
    kept: float | None = None

    @property
    def extra(self) -> float:
        """What the demo took more; what is unknown counts as 0."""
        return (self.demo or 0.0) - (self.direct or 0.0)


@dataclass(frozen=True)
class Setting:
    """What the servers tell of one setting; None is "unknown"."""

    name: str
    demo: str | None
    direct: str | None
    kept: str | None = None

    @property
    def differs(self) -> bool:
        """Whether two of them tell it, and not the same."""
        return len({self.demo, self.kept, self.direct} - {None}) > 1


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared.

    Attributes:
        parameters: what all were sent with every prompt.
        urls: where each server was; empty for servers that were started for the comparison.
        repeat: how often each prompt was sent to each server.
    """

    pairs: Sequence[Pair]
    settings: Sequence[Setting] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1

    @property
    def exit_code(self) -> int:
        """2 where a prompt could not be compared, else 1 where one is different, else 0."""
        verdicts = {pair.verdict for pair in self.pairs}
        return 2 if NOT_COMPARED in verdicts else int(DIFFERENT in verdicts)

    @property
    def sides(self) -> list[str]:
        """Those of ``SIDES`` that were asked."""
        return [side for side in SIDES if all(side in pair.said for pair in self.pairs)]

    @property
    def timed(self) -> list[Pair]:
        """The pairs whose times all servers tell: those that the totals are made of."""
        return [pair for pair in self.pairs if all(each.figures.seconds is not None for each in pair.said.values())]

    def total(self, side: str) -> Figures:
        """Sums of tokens and seconds, their quotient, and the median time to first token."""
        each = [pair.said[side].figures for pair in self.timed]
        tokens, seconds = _sum(one.tokens for one in each), _sum(one.seconds for one in each)
        return Figures(tokens, seconds, ratio(tokens, seconds), _median(one.ttft_ms for one in each))

    @property
    def speed_up(self) -> float | None:
        """Of the totals: the demo's seconds / the direct engine's seconds."""
        return ratio(self.total("demo").seconds, self.total("direct").seconds)

    @property
    def parts(self) -> list[Part]:
        """Where the time went, by the parts that at least one server tells; ``other`` is what no part accounts for."""
        if not self.timed:
            return []
        parts = [Part(name, **{side: self._part(side, name) for side in self.sides}) for name in PARTS]
        parts = [part for part in parts if any(getattr(part, side) is not None for side in self.sides)]
        rest = {
            side: (self.total(side).seconds or 0.0) - sum(getattr(part, side) or 0.0 for part in parts)
            for side in self.sides
        }
        return [*parts, Part("other", **rest)]

    @property
    def whole(self) -> Part:
        """All of the time: what ``parts`` add up to."""
        return Part("total", **{side: self.total(side).seconds for side in self.sides})

    def _part(self, side: str, name: str) -> float | None:
        medians = [pair.said[side].median(lambda reply: reply.parts.get(name)) for pair in self.timed]
        known = [value for value in medians if value is not None]
        return sum(known) if known else None


def ratio(one: float | None, other: float | None) -> float | None:
    """One by the other; None where one is unknown, or would be divided by zero."""
    return None if one is None or not other else one / other


def _sum(values: Iterable[float | None]) -> float | None:
    values = list(values)
    if not values or None in values:  # a part of the sum would be taken for all of it
        return None
    return sum(value or 0 for value in values)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def settings_of(
    healths: Mapping[str, Mapping[str, object]], pairs: Sequence[Pair], parameters: Mapping[str, object]
) -> list[Setting]:
    """The settings that the servers report, by name.

    Engine, model and device are those of the answers; then whatever ``settings`` of ``GET /health`` has, nested ones
    as ``sampling.top_p``. A default that every request has overridden is left out: it had no part in the answers.

    Args:
        healths: the body of ``GET /health`` for each of ``SIDES`` that was asked.
        parameters: what all were sent with every prompt.
    """
    sent = {name for name, value in parameters.items() if value is not None}
    told = {side: _settings(healths[side], [pair.said[side] for pair in pairs], sent) for side in healths}
    names = dict.fromkeys(name for side in SIDES if side in told for name in told[side])
    return [Setting(name, **{side: known.get(name) for side, known in told.items()}) for name in names]


def _settings(health: Mapping[str, object], asked: Iterable[Replies], sent: Collection[str]) -> dict[str, str | None]:
    answers = (reply for replies in asked for reply in replies.replies if reply.response is not None)
    first = next(answers, Reply(engine=_text(health.get("engine")), model=_text(health.get("model"))))
    settings = health.get("settings")
    known: dict[object, object] = {"engine": first.engine, "model": first.model, "device": first.device}
    told = settings.items() if isinstance(settings, dict) else ()
    return _flat(known | {name: value for name, value in told if name not in sent})


def _flat(settings: Mapping[object, object], prefix: str = "") -> dict[str, str | None]:
    flat: dict[str, str | None] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": _text(value)}
    return flat


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
