"""The smoke test of the demo: reads the prompt file, and checks each answer against what it expects."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from demo_api.demo.prompt_files import BUNDLED, read_entries
from demo_api.errors import BadRequest, DemoApiError
from demo_api.messages import MAX_TOKENS, Prompt

# By way of the link in the package, so that the folder prompts/ of a checkout is found from a wheel too.
DEFAULT_PROMPTS = BUNDLED / "smoke.json"

PASSED, FAILED, COULD_NOT_RUN = "passed", "failed", "could not run"

EXIT_FAILED, EXIT_COULD_NOT_RUN = 1, 2

SEARCH_SECONDS = 5.0
"""What one regular expression may take; one that backtracks without end fails its prompt, and does not hang CI."""

_DEMO_CODES = {
    "skipped",
    "demo_failed",
    "collection_error",
    "usage_error",
    "no_tests",
    "crashed",
    "no_answer",
    "timed_out",
    "output_too_large",
}
"""The codes of a broken demo. With any other one, nothing was learned about the demo."""

_MACHINE = re.compile(
    r"No chips detected"
    r"|failed to initialize FW"
    r"|(?i:sfpi\b[^.]*\bnot found)"
    r"|No module named (?!'?models\b)"  # a part of the checkout is the demo's own
    r"|cannot open shared object file"
    r"|No space left on device"
    r"|so the run did not start"
)
"""What a failed run says when the machine, and not the demo, is broken. docs/ci.md has the table."""


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it is not a regular expression: {error}") from None
    return pattern


class Expectation(BaseModel):
    """What an answer must fulfil; None is not checked."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    contains: str | None = Field(default=None, min_length=1)
    matches: Annotated[str, Field(min_length=1), AfterValidator(_regular_expression)] | None = None
    min_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    max_ttft_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    min_tokens_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Entry(BaseModel):
    """One prompt of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    prompt: Prompt
    expect: Expectation = Expectation()


class _Figures(BaseModel):
    ttft_ms: float | None = None
    decode_tokens_per_second: float | None = None


class Reply(BaseModel):
    """What ``POST /chat`` answers, an answer or an error, as far as it is judged or shown."""

    success: bool = False
    response: str | None = None
    tokens_generated: int | None = None
    time_seconds: float | None = None
    timing: _Figures = _Figures()
    model: str | None = None
    device: str | None = None
    finish_reason: str | None = None
    run_id: str | None = None
    exit_code: int | None = None
    code: str | None = None
    error: str | None = None
    next_step: str | None = None

    @classmethod
    def of(cls, error: DemoApiError) -> Reply:
        """What ``POST /chat`` would answer for this exception."""
        return cls.model_validate(error.body())


@dataclass(frozen=True)
class Check:
    """The outcome of one prompt.

    Attributes:
        status: ``PASSED``, ``FAILED`` (the demo is broken) or ``COULD_NOT_RUN`` (the machine or its set-up is).
        reasons: a sentence for each thing that was wrong; empty for ``PASSED``.
        reply: empty for a prompt that has not ended.
    """

    entry: Entry
    status: str
    reasons: tuple[str, ...] = ()
    reply: Reply = field(default_factory=Reply)

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        shown = {"prompt": self.entry.prompt, "status": self.status.replace(" ", "_"), "reasons": list(self.reasons)}
        return shown | self.reply.model_dump(exclude={"success"})


def read_prompts(path: Path, *, max_tokens: int) -> list[Entry]:
    """Reads a prompt file: the demo's own format, with an optional ``expect`` per prompt.

    Args:
        max_tokens: what will be asked for; an expectation of more can never be met.

    Raises:
        BadRequest: it cannot be read, or something in it is wrong; the sentence names the place.
    """
    entries = read_entries(path, Entry)
    for number, entry in enumerate(entries, 1):
        if (entry.expect.min_tokens or 0) > max_tokens:
            raise BadRequest(
                f"{path}, entry {number}, 'expect.min_tokens': an answer has at most {max_tokens} tokens.",
                next_step="Raise --max-tokens, or expect fewer.",
            )
    return entries


def judge(entry: Entry, reply: Reply) -> Check:
    """Holds a reply against what the prompt's entry expects."""
    if not reply.success or reply.response is None:
        code = reply.code or "no_answer"
        sentence = reply.error or "The response has neither an answer nor an error."
        broken_demo = code in _DEMO_CODES and not _MACHINE.search(sentence)
        reason = " ".join(filter(None, (f"{code}:", sentence, reply.next_step)))
        return Check(entry, FAILED if broken_demo else COULD_NOT_RUN, (reason,), reply)
    reasons = tuple(_broken_expectations(entry.expect, reply.response, reply))
    return Check(entry, FAILED if reasons else PASSED, reasons, reply)


def exit_code(checks: Iterable[Check]) -> int:
    """0: all passed; 2: nothing could run; 1: anything between."""
    statuses = {check.status for check in checks}
    if statuses == {PASSED}:
        return 0
    return EXIT_COULD_NOT_RUN if statuses <= {COULD_NOT_RUN} else EXIT_FAILED


def _broken_expectations(expect: Expectation, response: str, reply: Reply) -> Iterator[str]:
    if expect.contains is not None and expect.contains not in response:
        yield f"The answer does not contain {expect.contains!r}."
    if expect.matches is not None:
        found = _search(expect.matches, response)
        if found is None:
            yield f"The regular expression {expect.matches!r} took longer than {SEARCH_SECONDS:g} s."
        elif not found:
            yield f"The answer does not match {expect.matches!r}."
    figures = reply.timing
    yield from _out_of_bounds("tokens_generated", reply.tokens_generated, least=expect.min_tokens)
    yield from _out_of_bounds("ttft_ms", figures.ttft_ms, most=expect.max_ttft_ms)
    yield from _out_of_bounds(
        "decode_tokens_per_second", figures.decode_tokens_per_second, least=expect.min_tokens_per_second
    )


def _out_of_bounds(
    name: str, value: float | None, *, least: float | None = None, most: float | None = None
) -> Iterator[str]:
    bound = least if most is None else most
    if bound is None:
        return
    wanted = f"{'at least' if most is None else 'at most'} {bound:g} is expected"
    if value is None:
        yield f"{name} is not known (null), and {wanted}."
    elif (least is not None and value < least) or (most is not None and value > most):
        yield f"{name} is {value:g}, and {wanted}."


# Python's engine has no time limit, and holds the interpreter's lock: so a process of its own, which can be killed.
_SEARCHER = "import json, re, sys; sys.exit(re.search(*json.load(sys.stdin)) is None)"


def _search(pattern: str, text: str) -> bool | None:
    """Whether the pattern is somewhere in the text; None when that took too long to find out."""
    command = [sys.executable, "-I", "-c", _SEARCHER]
    order = json.dumps([pattern, text]).encode()
    try:
        done = subprocess.run(command, input=order, timeout=SEARCH_SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode == 0
