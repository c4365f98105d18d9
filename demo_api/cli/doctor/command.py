"""``demo-api doctor``: finds hidden problems before they cost minutes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping

import click
from rich.text import Text

from demo_api.cli.console import console_of
from demo_api.cli.doctor import child_checks, demo_checks, machine_checks, model_files
from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.probe import Setup, broken_off
from demo_api.cli.options import GroupedCommand, flags_of
from demo_api.config import Settings, flag_names
from demo_api.errors import BadRequest, SetupError, ShuttingDown
from demo_api.process.stopping import CurrentChild, stop_on_signals

Check = Callable[[Setup], Finding]

CHECKS: dict[str, Check] = {
    "demo_script": demo_checks.demo_script,
    "tilde": demo_checks.tilde,
    "model": demo_checks.model,
    "model_files": model_files.model_files,
    "interpreter": child_checks.interpreter,
    "packages": child_checks.packages,
    "import": child_checks.models_import,
    "numpy": child_checks.numpy,
    "generation": demo_checks.generation,
    "options": demo_checks.options,
    "collection": child_checks.collection,
    "ci": demo_checks.ci,
    "device_files": machine_checks.device_files,
    "device_use": machine_checks.device_use,
    "model_process": machine_checks.model_process,
    "hugepages": machine_checks.hugepages,
    "tt_smi": machine_checks.tt_smi,
    "disk": machine_checks.disk,
    "port": machine_checks.port,
}
"""The checks by their subjects. One raises SetupError where what it needs is not there."""

OF_TT_METAL = ("numpy", "generation", "options", "device_files", "hugepages", "tt_smi")
"""The checks that make no sense for the CPU edition."""

SUBJECTS = ("settings", *CHECKS)
"""The name of every check. ``settings`` comes first: the others need them."""


_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
_WIDTH = max(map(len, SUBJECTS))


@click.command(cls=GroupedCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--collect", is_flag=True, help="Also collect the demo's tests; with ttnn, this opens the device.")
@flags_of(flag_names())
def doctor(as_json: bool, collect: bool, **flags: str | None) -> None:
    """Find hidden problems before they cost minutes. Changes nothing, and opens no device without --collect."""
    current = CurrentChild()
    stop_on_signals(current.stop, current.hurry)
    console = console_of(sys.stdout)
    findings = {}
    for subject, finding in _findings(collect, flags, current):
        findings[subject] = finding
        if not as_json:
            console.print(_lines(subject, finding), soft_wrap=True)
    wrong = [subject for subject, finding in findings.items() if finding.level == "error"]
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "checks": [_as_dict(*each) for each in findings.items()]}))
    if wrong:
        kind = BadRequest if "settings" in wrong else SetupError  # as every command makes of a wrong value
        raise kind(
            f"The demo cannot run with these settings: see {', '.join(wrong)}.",
            next_step="Follow the next step of each line marked ✗, and run `demo-api doctor` again.",
        )


def _findings(collect: bool, flags: Mapping[str, str | None], current: CurrentChild) -> Iterator[tuple[str, Finding]]:
    try:
        settings = Settings.load(flags)
    except BadRequest as problem:  # that is all that can be said
        yield "settings", error(str(problem), problem.next_step)
        return
    yield "settings", ok("All variables and flags have values that can be used.")
    yield from examine(Setup(settings, collect=collect, current=current))


def examine(setup: Setup, checks: Mapping[str, Check] = CHECKS) -> Iterator[tuple[str, Finding]]:
    """Makes the checks, one after another, and yields what each finds; its own failure stops no other.

    Where several checks need what is not there, only the first says so.

    Args:
        checks: by their subjects.

    Raises:
        ShuttingDown: the checks are interrupted.
    """
    missing: set[str] = set()
    for subject, check in checks.items():
        if setup.current.is_stopped:
            raise broken_off()
        if setup.settings.is_cpu_demo and subject in OF_TT_METAL:
            continue
        try:
            yield subject, check(setup)
        except ShuttingDown:
            raise
        except SetupError as problem:
            if str(problem) not in missing:
                missing.add(str(problem))
                yield subject, error(str(problem), problem.next_step)
        except Exception as failure:
            sentence = f"This check itself failed: {type(failure).__name__}: {failure}"
            yield subject, warning(sentence, "Look at what it is about by hand; docs/doctor.md says what that is.")


def _as_dict(subject: str, finding: Finding) -> dict[str, str]:
    return {"check": subject, "level": finding.level, "finding": finding.sentence, "next_step": finding.next_step}


def _lines(subject: str, finding: Finding) -> Text:
    mark, style = _MARKS[finding.level]
    line = Text.assemble((mark, style), f" {subject:{_WIDTH}}  {finding.sentence}")
    return line.append(f"\n  {'':{_WIDTH}}  → {finding.next_step}") if finding.next_step else line
