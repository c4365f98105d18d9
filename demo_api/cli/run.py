"""Runs the demo once, without HTTP."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from demo_api import bodies, server
from demo_api.cli.options import flags_of
from demo_api.config import Settings, setting_names
from demo_api.device import DeviceBusy, Hold
from demo_api.errors import DemoApiError, RunFailed, ShuttingDown
from demo_api.ledger import Ledger, new_id
from demo_api.messages import Batch, Event, Run, check_request
from demo_api.run_folder import RunFolder
from demo_api.runner import DemoRunner

_RUN_SETTINGS = [name for name in setting_names() if name not in ("host", "port", "max_queue")]


@click.command()
@click.argument("prompt")
@click.option("--max-tokens", type=int, help="Most tokens to answer with (1 to 2048, default 128).")
@click.option("--temperature", type=float, help="0 answers the same every time (0.0 to 2.0, default 0.7).")
@click.option("--top-p", type=float, help="Share of the probability to sample from (over 0 to 1, default 0.9).")
@click.option("--seed", type=int, help="Repeats a sampled answer (CPU edition only).")
@click.option("--json", "as_json", is_flag=True, help="Print what POST /chat would answer.")
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


def _run(settings: Settings, fields: dict[str, object]) -> dict[str, object]:
    engine, stopped = DemoRunner(settings), threading.Event()
    request = check_request(fields)
    engine.accept(request)
    engine.check()
    devices, name = Ledger(settings).devices, engine.device.name
    batch = Batch(new_id(), [Run(new_id(), request, engine.demo(), accepted_at=time.time(), waited_seconds=0.0)])

    def stop() -> None:
        stopped.set()
        engine.cancel(batch.batch_id, "cancelled")

    server.stop_on_signals(stop, engine.hurry)
    with Console(stderr=True).status("waiting for the device") as status, _held(engine, settings, stopped) as hold:
        doubt = engine.clear_up()
        if doubt:
            devices.suspect(name, doubt)
        outcome = engine.generate(batch, lambda _, event: status.update(_progress(event)), hold)
        devices.settle(name, outcome)
    result = outcome.results[0]
    output = RunFolder(Path(result.log_folder)).readable_log() if result.log_folder else ""
    seconds = time.monotonic() - batch.claimed_at
    return bodies.answer(replace(batch.runs[0], result=result), engine=engine.name, output=output, seconds=seconds)


def _held(engine: DemoRunner, settings: Settings, stopped: threading.Event) -> Hold:
    try:
        return engine.device.wait_to_hold(seconds=settings.run_timeout, given_up=stopped)
    except DeviceBusy:
        if stopped.is_set():
            raise ShuttingDown("The run was not started.") from None
        sentence = f"Another process held the device for {settings.run_timeout:g} s, so the run did not start."
        raise RunFailed(sentence, code="timed_out") from None


def _progress(event: Event) -> Text:
    # As Text, because a plain string is markup to rich, and prompts and answers may hold brackets.
    if event.kind == "progress":
        speed = event.data["tokens_per_second_per_user"]
        return Text(f"decode: iteration {event.data['iteration']}, {speed} tokens/s")
    return Text(str(event.data.get("phase") or event.data.get("tail")))
