"""Looks for what a user cannot see before minutes are lost on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from demo_api.cli.doctor import SUBJECTS, Finding, Setup, examine, load
from demo_api.cli.options import flags_of
from demo_api.config import flag_names
from demo_api.errors import SetupError, ShuttingDown

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
_WIDTH = max(map(len, SUBJECTS))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--collect", is_flag=True, help="Collect the demo's tests, though with ttnn that opens the device.")
@flags_of(flag_names())
def doctor(as_json: bool, collect: bool, **flags: str | None) -> None:
    """Check what a user cannot see; nothing is changed, and no device is opened unless you --collect."""
    console = Console(force_terminal=sys.stdout.isatty(), highlight=False, soft_wrap=True)
    findings = []
    try:
        for finding in _findings(collect, flags):
            findings.append(finding)
            if not as_json:
                console.print(_lines(finding))
    except KeyboardInterrupt:
        raise ShuttingDown("The checks were broken off.", next_step="Run `demo-api doctor` again.") from None
    wrong = [finding.subject for finding in findings if finding.level == "error"]
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "checks": [finding.as_dict() for finding in findings]}))
    if wrong:
        raise SetupError(
            f"The demo cannot be run as it is set: see {', '.join(wrong)}.",
            next_step="Take the next step of each line that is marked ✗, and run `demo-api doctor` again.",
        )


def _findings(collect: bool, flags: dict[str, str | None]) -> Iterator[Finding]:
    finding, settings = load(flags)
    yield finding
    if settings is not None:
        yield from examine(Setup(settings, collect=collect))


def _lines(finding: Finding) -> Text:
    mark, style = _MARKS[finding.level]
    line = Text.assemble((mark, style), f" {finding.subject:{_WIDTH}}  {finding.sentence}")
    return line.append(f"\n  {'':{_WIDTH}}  → {finding.next_step}") if finding.next_step else line
