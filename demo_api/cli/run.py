"""``demo-api run``: runs the demo once, without HTTP."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from demo_api import bodies
from demo_api.bodies import ChatAnswer
from demo_api.cli.console import console_of
from demo_api.cli.live_status import LiveStatus
from demo_api.cli.options import OF_A_RUN, GroupedCommand, flags_of
from demo_api.cli.visible import visible
from demo_api.config import Settings
from demo_api.demo.prompt_files import read_one_prompt, read_prompts_or_lines
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.local_run import LocalRun
from demo_api.errors import BadRequest, DemoApiError
from demo_api.messages import Request, Run
from demo_api.process.stopping import stop_on_signals
from demo_api.web.parse import check_request


@click.command(cls=GroupedCommand)
@click.argument("prompt", required=False)
@click.option("--file", type=click.Path(path_type=Path, allow_dash=True), metavar="F",
              help="Prompts in the demo's format, or text with one prompt a line; `-` is standard input.")  # fmt: skip
@click.option("--max-tokens", type=int, help="Most tokens in the answer (1 to 2048, default 128).")
@click.option("--temperature", type=float, help="0.0 to 2.0, default 0.7; 0 gives the same answer every time.")
@click.option("--top-p", type=float, help="Share of the probability to sample from (above 0, up to 1; default 0.9).")
@click.option("--seed", type=int, help="Makes a sampled answer repeatable, if the demo takes a seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the response of POST /chat, one line for each prompt.")
@flags_of(OF_A_RUN)
def run(prompt: str | None, file: Path | None, as_json: bool, **options: Any) -> None:
    """Run the demo once with PROMPT, and print its answer.

    `-` reads the prompt from standard input. The prompts of --file go to the demo together; their answers come in the
    same order, with an empty line between them.
    """
    logging.basicConfig(level=logging.ERROR, format="demo-api: %(message)s")
    sampling = {name: options.pop(name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    try:
        settings = Settings.load(options)
        requests = _requests(_prompts(prompt, file), sampling)
        answers = _run(settings, requests)
    except DemoApiError as error:
        if as_json:
            click.echo(json.dumps(error.body()))
        raise
    _print(answers, as_json)


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    if prompt is None and file is not None:
        return read_prompts_or_lines(file)
    if prompt is None or file is not None:
        raise click.UsageError("Give one prompt (in quotes), `-` for standard input, or --file with prompts.")
    return [read_one_prompt(Path(prompt)) if prompt == "-" else prompt]


def _requests(prompts: Sequence[str], sampling: dict[str, object]) -> list[Request]:
    given = {name: value for name, value in sampling.items() if value is not None}
    requests = []
    for number, prompt in enumerate(prompts, 1):
        try:
            requests.append(check_request({"prompt": prompt, **given}))
        except BadRequest as error:
            if len(prompts) == 1 or error.fields.get("field") != "prompt":
                raise
            raise BadRequest(f"Prompt {number}: {error}", next_step=error.next_step, field="prompt") from None
    return requests


def _run(settings: Settings, requests: Sequence[Request]) -> list[ChatAnswer | DemoApiError]:
    """The answer to each request, or why it has none, in order."""
    demo = LocalRun(settings)
    runs = demo.prepare(requests)
    stop_on_signals(demo.stop, demo.hurry)
    live = LiveStatus(runs)
    with console_of(sys.stderr).status(live):
        ended = {run.run_id: run for run in demo.run(runs, live)}  # batches need not be in the prompts' order
    return [_answer(ended[run.run_id]) for run in runs]


def _answer(run: Run) -> ChatAnswer | DemoApiError:
    folder = run.result.log_folder if run.result else None
    output = RunFolder(Path(folder)).readable_log() if folder else ""
    try:
        return bodies.answer(run, engine="demo", output=output, seconds=run.time_seconds or 0.0)
    except DemoApiError as error:
        return error


def _print(answers: Sequence[ChatAnswer | DemoApiError], as_json: bool) -> None:
    """Prints the answers; raises the first error. Where a prompt has none, its place among several stays empty."""
    on_terminal = sys.stdout.isatty()
    for number, answer in enumerate(answers):
        if as_json:
            click.echo(json.dumps(answer.body() if isinstance(answer, DemoApiError) else answer))
            continue
        if number:
            click.echo()
        if isinstance(answer, DemoApiError):
            if len(answers) > 1:
                click.echo()
        else:
            # What a terminal would obey is shown; a program gets the answer as it is.
            text = answer["response"]
            click.echo(visible(text, keep="\n\t") if on_terminal else text)
    errors = [answer for answer in answers if isinstance(answer, DemoApiError)]
    if errors and len(answers) > 1:
        click.echo(
            f"demo-api: {len(errors)} of {len(answers)} prompts have no answer; the first one's error:", err=True
        )
    if errors:
        raise errors[0]
