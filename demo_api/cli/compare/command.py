"""``demo-api compare``: compares the demo engine with the direct engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from demo_api.cli.compare.asking import ask_all
from demo_api.cli.compare.comparison import NOT_COMPARED, SIDES, Comparison, Pair, settings_of
from demo_api.cli.compare.report import as_dict, as_html, print_report
from demo_api.cli.compare.servers import Servers
from demo_api.cli.console import console_of, steps_on
from demo_api.cli.options import DEMO, DEVICES, DIRECT, RESETS, RUNS, WARM, GroupedCommand, flags_of
from demo_api.client import Client
from demo_api.config import Settings, flag
from demo_api.demo.prompt_files import BUNDLED, read_prompts
from demo_api.errors import DemoApiError
from demo_api.process.stopping import stop_on_signals
from demo_api.web.parse import check_request

_EXIT_NOT_COMPARED = 2
_SERVER_SETTINGS = (*DEMO, *DIRECT, *RUNS, "cancel_on_disconnect", *WARM, *DEVICES, *RESETS)


def _output_file(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    # Found out now, and not after the minutes that the comparison takes.
    if path is not None and not os.access(path.absolute().parent, os.W_OK):
        raise click.BadParameter(f"nothing can be written in {path.absolute().parent}.", context, parameter)
    return path


def _file(name: str, help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.Path(dir_okay=False, writable=True, path_type=Path)
    return click.option(name, name[2:] + "_file", type=kind, metavar="F", callback=_output_file, help=help_text)


@click.command(cls=GroupedCommand)
@click.option("--demo", metavar="URL", help="Address of a running `demo-api serve --engine demo`.")
@click.option("--direct", metavar="URL", help="Address of a running `demo-api serve --engine direct`.")
@click.option("--kept", metavar="URL", help="Address of a third one, `demo-api serve --warm model`: may be left out.")
@click.option("--start", is_flag=True, help="Start the three servers on free ports, and stop them afterwards.")
@click.option("--prompts", metavar="FILE", type=click.Path(path_type=Path), default=BUNDLED / "compare.json",
              show_default="prompts/compare.json", help="Prompt file, in the demo's format.")  # fmt: skip
@click.option("--repeat", type=click.IntRange(1, 100), default=1, show_default=True,
              help="Times to send each prompt to each server; medians are shown.")  # fmt: skip
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Most tokens in an answer (1 to 2048).")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0.0 to 2.0; 0 is greedy.")
@click.option("--top-p", type=float, default=0.9, show_default=True, help="Above 0, up to 1.")
@click.option("--seed", type=int, help="Makes a sampled answer repeatable, if the engine takes a seed.")
@click.option("--min-similarity", type=click.FloatRange(0.0, 1.0), default=1.0, show_default=True,
              help="Answers at least this similar are not an error (0 to 1).")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="Time to wait for one answer; default: DEMO_API_RUN_TIMEOUT plus a minute.")  # fmt: skip
@_file("--json", "Write everything to this file, as JSON.")
@_file("--html", "Write a self-contained page to this file.")
@flags_of(_SERVER_SETTINGS)
@click.pass_context
def compare(context: click.Context, /, json_file: Path | None, html_file: Path | None, **options: Any) -> None:
    """Compare both engines: send them the same prompts, and compare answers and times.

    Exit code 0: all answers match; 1: an answer differs by more than --min-similarity allows; 2: a prompt could not
    be compared. The options in the groups below are settings of the servers that --start starts.
    """
    flags = {name: options.pop(name) for name in _SERVER_SETTINGS}
    _check_sides(options, flags)
    try:
        comparison = _compare(options, flags)
        print_report(comparison, console_of(sys.stdout))
        if json_file is not None:
            json_file.write_text(json.dumps(as_dict(comparison), indent=1) + "\n", encoding="utf-8")
        if html_file is not None:
            html_file.write_text(as_html(comparison), encoding="utf-8")
    except DemoApiError as error:
        click.echo(f"demo-api: {error}\n{error.next_step}", err=True)
        context.exit(_EXIT_NOT_COMPARED)
    except OSError as error:
        what = error.filename or "Standard output"
        click.echo(f"demo-api: {what} cannot be written: {error.strerror}.", err=True)
        context.exit(_EXIT_NOT_COMPARED)
    context.exit(comparison.exit_code)


def _compare(options: dict[str, Any], flags: dict[str, str | None]) -> Comparison:
    settings = Settings.load(flags)
    parameters = {name: options[name] for name in ("max_tokens", "temperature", "top_p", "seed")}
    check_request({"prompt": "a", **parameters})
    prompts = read_prompts(options["prompts"])
    timeout = options["timeout"] or settings.run_timeout + 60
    if options["start"]:
        return _compare_started(Servers(settings, flags, timeout=timeout), prompts, parameters, options)
    given = [side for side in SIDES if options[side] is not None]
    clients = {side: Client(options[side], timeout=timeout, key=settings.key) for side in given}
    urls = {side: client.url for side, client in clients.items()}
    return _ask(clients.__getitem__, given, prompts, parameters, options, urls=urls)


def _compare_started(
    servers: Servers, prompts: list[str], parameters: dict[str, object], options: dict[str, Any]
) -> Comparison:
    stop_on_signals(servers.interrupt, servers.hurry)
    keep = False
    try:
        comparison = _ask(
            servers.client, servers.sides, prompts, parameters, options, one_at_a_time=servers.one_at_a_time
        )
        servers.raise_if_interrupted()
        keep = any(pair.verdict == NOT_COMPARED for pair in comparison.pairs)  # their errors tell of files in it
        return comparison
    finally:
        kept = servers.close(keep_folder=keep)
        if kept is not None:
            click.echo(f"What the servers left, with their logs, is in {kept}.", err=True)


def _ask(
    client: Callable[[str], Client],
    sides: Sequence[str],
    prompts: list[str],
    parameters: dict[str, object],
    options: dict[str, Any],
    *,
    one_at_a_time: bool = False,
    urls: dict[str, str] | None = None,
) -> Comparison:
    met: set[str] = set()
    with steps_on(sys.stderr) as show:

        def client_of(side: str) -> Client:
            if side not in met:
                met.add(side)
                show(f"waiting for the {side} server")
            return client(side)

        healths, replies = ask_all(
            prompts,
            parameters,
            sides=sides,
            repeat=options["repeat"],
            client=client_of,
            one_at_a_time=one_at_a_time,
            progress=lambda side, number, total: show(f"request {number} of {total}, to {side}"),
        )
    pairs = [
        Pair(prompt, min_similarity=options["min_similarity"], **{side: replies[side][number] for side in sides})
        for number, prompt in enumerate(prompts)
    ]
    return Comparison(pairs, settings_of(healths, pairs, parameters), parameters, urls or {}, options["repeat"])


def _check_sides(options: dict[str, Any], flags: dict[str, str | None]) -> None:
    given = [f"--{side}" for side in SIDES if options[side] is not None]
    if options["start"] and given:
        raise click.UsageError(f"--start starts the servers: leave {' and '.join(given)} out.")
    if not options["start"] and None in (options["demo"], options["direct"]):
        raise click.UsageError("Give the addresses of both servers (--demo and --direct), or use --start.")
    unused = [flag(name) for name, value in flags.items() if value is not None]
    if not options["start"] and unused:
        raise click.UsageError(f"Without --start, the servers cannot be given {unused[0]}.")
