"""``demo-api smoke``: tests the demo with a few prompts, for CI."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from demo_api.cli.console import console_of
from demo_api.cli.live_status import LiveStatus
from demo_api.cli.options import OF_A_RUN, GroupedCommand, flags_of
from demo_api.cli.smoke import junit
from demo_api.cli.smoke.asking import Deadline, ask_demo, ask_server
from demo_api.cli.smoke.checks import (
    COULD_NOT_RUN,
    DEFAULT_PROMPTS,
    EXIT_COULD_NOT_RUN,
    FAILED,
    PASSED,
    Check,
    Entry,
    exit_code,
    read_prompts,
)
from demo_api.cli.visible import shortened, visible
from demo_api.config import Settings, flag
from demo_api.devices.local_run import LocalRun
from demo_api.errors import BadRequest, DemoApiError
from demo_api.messages import Request
from demo_api.process.stopping import stop_on_signals
from demo_api.web.parse import check_request

logger = logging.getLogger(__name__)

_EXIT_INTERRUPTED = 130
_FILE = click.Path(dir_okay=False, path_type=Path)
# CI systems obey ##[...], ##vso[...] and ##teamcity[...] in what a job prints.
_CI_COMMAND = re.compile(r"##(?=\w*\[)")


@click.command(cls=GroupedCommand)
@click.option("--prompts", type=_FILE, default=DEFAULT_PROMPTS, help="Prompt file; default: prompts/smoke.json.")
@click.option("--url", help="Server to ask instead of running the demo here, such as http://127.0.0.1:8080.")
@click.option("--junit-xml", type=_FILE, help="Write a JUnit report to this file.")
@click.option("--json", "json_file", type=_FILE, help="Write everything about each prompt to this file, as JSON.")
@click.option(
    "--max-seconds",
    type=click.IntRange(1, 604_800),
    default=1800,
    show_default=True,
    help="Overall limit; prompts still running then fail as timed out.",
)
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Most tokens in an answer (1 to 2048).")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 gives the same answer every time.")
@flags_of(OF_A_RUN)
@click.pass_context
def smoke(ctx: click.Context, /, junit_xml: Path | None, json_file: Path | None, **options: Any) -> None:
    """Test the demo with a few prompts, for CI.

    Exit code 0: all passed; 1: the demo is broken; 2: it could not be run (device, set-up, wrong use).
    """
    logging.basicConfig(level=logging.ERROR, format="demo-api: %(message)s")
    started = time.monotonic()
    try:
        _make_room(junit_xml, json_file)
        checks, code = _run(options)
        seconds = time.monotonic() - started
        _write(junit_xml, json_file, checks, code, seconds)
        counts = Counter(check.status for check in checks)
        shown = (f"{counts[status]} {status}" for status in (PASSED, FAILED, COULD_NOT_RUN) if counts[status])
        click.echo(f"{', '.join(shown)}, in {seconds:.1f} s")
    except DemoApiError as error:
        click.echo(f"demo-api: {error}\n{error.next_step}", err=True)
        ctx.exit(EXIT_COULD_NOT_RUN)
    except Exception as error:
        # The usual exit code for this is 1, which is a verdict on the demo.
        if isinstance(error, OSError):
            logger.error("%s cannot be used: %s.", error.filename or "Standard output", error.strerror or error)
        else:
            logger.exception("the smoke test itself failed")
        ctx.exit(EXIT_COULD_NOT_RUN)
    ctx.exit(code)


def _run(options: dict[str, Any]) -> tuple[list[Check], int]:
    path, url, max_seconds = (options.pop(name) for name in ("prompts", "url", "max_seconds"))
    sampling = {name: options.pop(name) for name in ("max_tokens", "temperature")}
    given = [flag(name) for name, value in options.items() if value is not None]
    if url is not None and given:
        raise BadRequest(
            f"{', '.join(given)} cannot be used with --url.",
            next_step="The server uses the settings it was started with.",
        )
    entries = read_prompts(path, max_tokens=sampling["max_tokens"])
    asked = [check_request({"prompt": entry.prompt, **sampling}) for entry in entries]
    deadline, interrupted = Deadline(max_seconds), threading.Event()
    if url is not None:
        stop_on_signals(interrupted.set, lambda: None)
        checks = _print(ask_server(entries, asked, url, deadline, interrupted, key=Settings.load().key))
    else:
        checks = _print(_ask_here(Settings.load(options), entries, asked, deadline, interrupted))
    ordered = sorted(checks, key=lambda check: entries.index(check.entry))  # batches need not be in the file's order
    return ordered, _EXIT_INTERRUPTED if interrupted.is_set() else exit_code(ordered)


def _ask_here(
    settings: Settings,
    entries: Sequence[Entry],
    asked: Sequence[Request],
    deadline: Deadline,
    interrupted: threading.Event,
) -> Iterator[Check]:
    demo = LocalRun(settings)

    def stop() -> None:
        interrupted.set()
        demo.stop()

    stop_on_signals(stop, demo.hurry)
    live = LiveStatus()
    with console_of(sys.stderr).status(live):
        yield from ask_demo(entries, asked, demo, deadline, live)


def _print(checks: Iterable[Check]) -> list[Check]:
    """Prints a line for each, as soon as it is known."""
    shown = []
    for check in checks:
        line = _CI_COMMAND.sub(r"#\\x23", visible(_line(check)))
        click.echo(f"{check.status:13}  {line}")
        shown.append(check)
    return shown


def _line(check: Check) -> str:
    prompt, reply = shortened(check.entry.prompt), check.reply
    if reply.response is None:
        return f"{prompt}  {' '.join(check.reasons)}"
    figures = [
        f"{value:g} {unit}"
        for value, unit in (
            (reply.tokens_generated, "tokens"),
            (reply.timing.ttft_ms, "ms to the first"),
            (reply.timing.decode_tokens_per_second, "tokens/s"),
        )
        if value is not None
    ]
    return "  ".join([prompt, *check.reasons, f"[{', '.join(figures)}]", shortened(reply.response)])


def _make_room(*reports: Path | None) -> None:
    """Removes old reports, which must not be taken for new ones, and fails early where none can be written."""
    for path in filter(None, reports):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink() and (path.is_file() or not path.exists()):  # /dev/stdout is not ours to remove
                path.write_bytes(b"")
                path.unlink()
        except OSError as error:
            sentence = f"No report can be written to {path}: {error.strerror}."
            raise BadRequest(sentence, next_step="Name a file that can be created.") from None


def _write(junit_xml: Path | None, json_file: Path | None, checks: Sequence[Check], code: int, seconds: float) -> None:
    if junit_xml:
        junit.write(junit_xml, checks, seconds=seconds)
    if json_file:
        report = {"exit_code": code, "seconds": round(seconds, 3), "prompts": [check.as_dict() for check in checks]}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="ascii")
