"""``demo-api run``: runs the demo once, without HTTP."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from demo_api import bodies
from demo_api.bodies import ChatAnswer
from demo_api.cli.console import console_of
from demo_api.cli.options import OF_SERVERS, flags_of
from demo_api.config import Settings, flag_names
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.local_run import LocalRun
from demo_api.errors import DemoApiError
from demo_api.messages import Event
from demo_api.process.stopping import stop_on_signals
from demo_api.web.parse import check_request

_RUN_SETTINGS = [name for name in flag_names() if name not in OF_SERVERS]


@click.command()
@click.argument("prompt")
@click.option("--max-tokens", type=int, help="Most tokens in the answer (1 to 2048, default 128).")
@click.option("--temperature", type=float, help="0.0 to 2.0, default 0.7; 0 gives the same answer every time.")
@click.option("--top-p", type=float, help="Share of the probability to sample from (above 0, up to 1; default 0.9).")
@click.option("--seed", type=int, help="Makes a sampled answer repeatable, if the demo takes a seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the response of POST /chat.")
@flags_of(_RUN_SETTINGS)
def run(prompt: str, as_json: bool, **options: Any) -> None:
    """Run the demo once with PROMPT, and print its answer."""
    logging.basicConfig(level=logging.ERROR, format="demo-api: %(message)s")
    sampling = {name: options.pop(name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    fields = {"prompt": prompt} | {name: value for name, value in sampling.items() if value is not None}
    try:
        body = _run(Settings.load(options), fields)
    except DemoApiError as error:
        if as_json:
            click.echo(json.dumps(error.body()))
        raise
    click.echo(json.dumps(body) if as_json else body["response"])


def _run(settings: Settings, fields: dict[str, object]) -> ChatAnswer:
    demo = LocalRun(settings)
    runs = demo.prepare([check_request(fields)])
    stop_on_signals(demo.stop, demo.hurry)
    with console_of(sys.stderr).status("waiting for the device") as status:
        (run,) = demo.run(runs, lambda event: status.update(_progress(event)))
    folder = run.result.log_folder if run.result else None
    output = RunFolder(Path(folder)).readable_log() if folder else ""
    return bodies.answer(run, engine="demo", output=output, seconds=run.time_seconds or 0.0)


def _progress(event: Event) -> Text:
    # As Text, because a plain string is markup to rich, and prompts and answers may hold brackets.
    if event.kind == "progress":
        speed = event.data["tokens_per_second_per_user"]
        return Text(f"decode: iteration {event.data['iteration']}, {speed} tokens/s")
    return Text(str(event.data.get("phase") or event.data.get("tail")))
