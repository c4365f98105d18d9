"""The command line. The only module that configures logging and chooses exit codes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from demo_api import home, server, transcript, weights
from demo_api.app import DEMO_NOTE, create_app, endpoints
from demo_api.config import Settings, flag, setting_names, variable
from demo_api.dispatcher import Dispatcher
from demo_api.errors import BadRequest, DemoApiError, SetupError, ShuttingDown
from demo_api.messages import Event, answer_body, check_request
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
    settings = Settings.load(flags)
    engine = DemoRunner(settings)
    app = create_app(settings, engine)
    click.echo("\n".join(_banner_of_checks(settings)))
    engine.check()
    http = server.HttpServer(app, settings)
    click.echo("Endpoints:")
    for endpoint in endpoints(app):
        method, path = endpoint.split()
        click.echo(f"  {method:4} {http.url}{path}")
    click.echo(f"Note: {DEMO_NOTE}\nPress Ctrl+C to stop.\n{'=' * 72}")
    server.stop_on_signals(app.extensions["demo_api"], then=http.close)
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
    engine = DemoRunner(settings)
    request = check_request(fields)
    engine.accept(request)
    engine.check()
    with Console(stderr=True).status("waiting for the device") as status:
        dispatcher = Dispatcher(engine, max_queue=0, listener=lambda _, event: status.update(_progress(event)))
        server.stop_on_signals(dispatcher)
        pending = dispatcher.submit(request)
        result = pending.result.result()
    return answer_body(pending.run, result, engine.name)


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
