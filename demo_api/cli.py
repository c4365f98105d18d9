"""The command line. The only module that configures logging and chooses exit codes."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from demo_api import bodies, home, server, transcript, weights
from demo_api.app import create_app, endpoints
from demo_api.care import Care
from demo_api.config import Settings, flag, setting_names, variable
from demo_api.device import Device, DeviceBusy, Hold
from demo_api.errors import BadRequest, DemoApiError, DeviceFailed, RunFailed, SetupError, ShuttingDown
from demo_api.health import DEMO_NOTE
from demo_api.ledger import Ledger, new_id
from demo_api.messages import Batch, Event, Run, check_request
from demo_api.reset import holders
from demo_api.run_folder import RunFolder
from demo_api.runner import DemoRunner

EXIT_FAILED, EXIT_USAGE, EXIT_SETUP, EXIT_TIMED_OUT, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes beside 0; the README has the table."""

_RUN_SETTINGS = [name for name in setting_names() if name not in ("host", "port", "max_queue")]
_CHUNK = 2**20


class _Commands(click.Group):
    """Turns our exceptions into one sentence, the next step, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DemoApiError as error:
            click.echo(f"demo-api: {error}\n{error.next_step}", err=True)
            ctx.exit(_exit_code(error))


def _exit_code(error: DemoApiError) -> int:
    if isinstance(error, SetupError):
        return EXIT_SETUP
    if isinstance(error, BadRequest):
        return EXIT_USAGE
    if isinstance(error, ShuttingDown) or error.code == "cancelled":
        return EXIT_INTERRUPTED
    return EXIT_TIMED_OUT if error.code == "timed_out" else EXIT_FAILED


def _flags(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a flag for each of these settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(list(names)):
            help_text = f"{Settings.model_fields[name].description} [{variable(name)}]"
            command = click.option(flag(name), name, metavar="VALUE", help=help_text)(command)
        return command

    return decorate


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="demo-api")
def main() -> None:
    """Run Tenstorrent's simple_text_demo.py, over HTTP or once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # an answer may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")


@main.command()
@_flags(setting_names())
def serve(**flags: str | None) -> None:
    """Serve the demo over HTTP."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a waiting line is our normal state
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.load(flags)
    click.echo("\n".join(_banner_of_checks(settings)))
    DemoRunner(settings).check()
    app = create_app(settings)
    http = server.HttpServer(app, settings)
    click.echo("Endpoints:")
    for endpoint in endpoints(app):
        method, path = endpoint.split()
        click.echo(f"  {method:4} {http.url}{path}")
    click.echo(f"Note: {DEMO_NOTE}\nPress Ctrl+C to stop.\n{'=' * 72}")
    dispatcher = app.extensions["demo_api"]

    def stop() -> None:
        dispatcher.close()
        http.close()

    server.stop_on_signals(stop, dispatcher.hurry)
    dispatcher.start()  # what an earlier server left in the line is run without anybody asking
    http.run()


def _banner_of_checks(settings: Settings) -> Iterator[str]:
    yield from ("=" * 72, "🚀 demo_api: simple_text_demo.py over HTTP", "=" * 72)
    checks: list[tuple[str, Callable[[], object]]] = [
        ("Demo script", lambda: home.script(settings)),
        ("Interpreter", lambda: home.interpreter(settings)),
        ("Model", lambda: "=".join(home.model_variable(settings))),
    ]
    for name, check in checks:
        try:
            yield f"✓ {name + ':':12} {check()}"
        except SetupError as error:
            yield f"✗ {name + ':':12} {error} {error.next_step}"
    yield f"  PYTHONPATH:  {settings.demo_home}"


@main.command()
@click.argument("prompt")
@click.option("--max-tokens", type=int, help="Most tokens to answer with (1 to 2048, default 128).")
@click.option("--temperature", type=float, help="0 answers the same every time (0.0 to 2.0, default 0.7).")
@click.option("--top-p", type=float, help="Share of the probability to sample from (over 0 to 1, default 0.9).")
@click.option("--seed", type=int, help="Repeats a sampled answer (CPU edition only).")
@click.option("--json", "as_json", is_flag=True, help="Print what POST /chat would answer.")
@_flags(_RUN_SETTINGS)
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


@main.command()
@click.option("--prompts", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stdout", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stderr", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--exit-code", required=True, type=int, help="Negative: the signal that ended the child.")
def parse(prompts: Path, stdout: Path, stderr: Path, exit_code: int) -> None:
    """Read what a run of the demo printed, and print that as one JSON object."""
    reading = transcript.parse(_read_prompts(prompts), _chunks(stdout), _chunks(stderr), exit_code)
    click.echo(json.dumps(reading.as_dict()))


def _read_prompts(path: Path) -> list[str]:
    try:
        entries = json.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise TypeError
        return [str(entry["prompt"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BadRequest(
            f"{path} is no prompt file.", next_step='A prompt file is a JSON list such as [{"prompt": "What is 2+2?"}].'
        ) from None


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@main.group()
def device() -> None:
    """See, reset and clear the devices."""


_NAME = click.argument("name", required=False)
_DEVICE_SETTINGS = ["state_dir", "database_url", "devices", "reset_command", "reset_check", "reset_timeout"]


@device.command()
@_flags(["state_dir", "database_url", "devices"])
def status(**flags: str | None) -> None:
    """Print the state of every device, one line each."""
    settings = Settings.load(flags)
    ledger = Ledger(settings)
    for each in settings.device_list:
        known = ledger.devices.get(each.name)
        taken = " (a child holds it)" if each.has_child() else ""
        click.echo(f"{each.name}: {known.state}{taken}" + (f": {known.reason}" if known.reason else ""))


@device.command()
@_NAME
@_flags(_DEVICE_SETTINGS)
def reset(name: str | None, **flags: str | None) -> None:
    """Reset a device with DEMO_API_RESET_COMMAND; nothing may hold it."""
    settings = Settings.load(flags)
    if not settings.reset_command:
        raise SetupError(
            "No command is set that resets a device.",
            next_step="Set DEMO_API_RESET_COMMAND (--reset-command), for Tenstorrent to `tt-smi -r`.",
        )
    chosen, ledger = _device(settings, name), Ledger(settings)
    hold = chosen.try_hold()
    if hold is None:
        raise DeviceFailed(f"The device {chosen.name} is in use.", next_step="Wait for the run to end, or cancel it.")
    with hold:
        in_the_way = holders()
        if in_the_way:
            used_by = ", ".join(in_the_way)
            raise DeviceFailed(f"The device {chosen.name} is used by {used_by}.", next_step="End that program.")
        Care(ledger.devices, chosen, settings).reset(hold)
    known = ledger.devices.get(chosen.name)
    if known.state != "free":
        raise DeviceFailed(f"The device {chosen.name} is {known.state}: {known.reason}")
    click.echo(f"{chosen.name}: free")


@device.command()
@_NAME
@_flags(["state_dir", "database_url", "devices"])
def clear(name: str | None, **flags: str | None) -> None:
    """Take back the server's doubt about a device that you know to be well."""
    settings = Settings.load(flags)
    chosen = _device(settings, name)
    Ledger(settings).devices.set(chosen.name, "free")
    click.echo(f"{chosen.name}: free")


def _device(settings: Settings, name: str | None) -> Device:
    by_name = {each.name: each for each in settings.device_list}
    if name is None and len(by_name) == 1:
        return settings.device_list[0]
    if name not in by_name:
        raise BadRequest(
            f"There is no device {name}." if name else "There are several devices.",
            next_step=f"Name one of: {', '.join(by_name)}.",
        )
    return by_name[name]


@main.group()
def model() -> None:
    """Get the small model of the CPU edition, and find it."""


@model.command()
@_flags(["model_dir"])
def pull(**flags: str | None) -> None:
    """Download the small model (100 MB) unless it is there."""
    directory = Settings.load(flags).model_dir
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("SmolLM2-135M-Instruct", total=None)
        path = weights.pull(directory, progress=lambda done, total: progress.update(task, completed=done, total=total))
    click.echo(path)


@model.command()
@_flags(["model_dir"])
def path(**flags: str | None) -> None:
    """Print where the small model is: the value for LLAMA_DIR."""
    directory = Settings.load(flags).model_dir
    found = weights.find(directory)
    if found is None:
        raise SetupError(f"The small model is not in {directory} yet.", next_step="Run `demo-api model pull`.")
    click.echo(found)
