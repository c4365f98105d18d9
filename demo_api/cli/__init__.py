"""The command line. The only package that configures logging and chooses exit codes."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from io import TextIOWrapper
from itertools import pairwise
from typing import Any

import click

from demo_api.cli.visible import visible
from demo_api.errors import BadRequest, DemoApiError, SetupError, ShuttingDown

EXIT_FAILED, EXIT_USAGE, EXIT_SETUP, EXIT_TIMED_OUT, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes beside 0; docs/reference.md has the table."""


_MODULES = {
    "serve": "serve",
    "run": "run",
    "smoke": "smoke.command",
    "chat": "chat",
    "compare": "compare.command",
    "parse": "parse",
    "database": "database",
    "device": "device",
    "doctor": "doctor.command",
    "model": "model",
    "status": "status",
    "worker": "worker",
}
"""Where each command is. It is imported when it is used: what ``compare`` needs costs a server no memory."""


_TOO_LITTLE = """\
demo-api: This process may not use as much memory, or start as many threads, as it needs.
Raise the limit (ulimit -v, ulimit -u, or MemoryMax and TasksMax of systemd), or lower --max-waiting of a server."""


class _Commands(click.Group):
    """Loads commands when they are used, and turns errors into a sentence, a next step and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(import_module(f"demo_api.cli.{_MODULES[cmd_name]}"), cmd_name)
        if callable(signal.getsignal(signal.SIGINT)):  # and not ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the imports are over, see __main__
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # such as a full disk behind standard output
            what = error.filename or "Standard output"
            click.echo(f"demo-api: {what} cannot be used: {error.strerror or error}.", err=True)
            sys.exit(EXIT_SETUP)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "start new thread" not in str(error):
                raise
            click.echo(_TOO_LITTLE, err=True)
            sys.exit(EXIT_SETUP)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            _refuse_empty_words(ctx.args)
            return super().invoke(ctx)
        except DemoApiError as error:
            click.echo(visible(f"demo-api: {error}\n{error.next_step}", keep="\n\t"), err=True)
            ctx.exit(_exit_code(error))
        except KeyboardInterrupt:
            click.echo("demo-api: Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)


def _refuse_empty_words(words: Iterable[str]) -> None:
    # Taken for none, it would have something else tested, or served, than was meant: scripts lose values.
    for before, word in pairwise(("", *words)):
        if word == "--":  # what follows is a prompt
            return
        name = re.fullmatch(r"(--[\w-]+)=", word)
        if name or not word.strip():
            given = name[1] if name else before if re.fullmatch(r"--[\w-]+", before) else "An argument"
            raise BadRequest(f"{given} is empty.", next_step="Give it a value, or leave it out.")


def _exit_code(error: DemoApiError) -> int:
    if error.code == SetupError.code:  # of a run too, whose child found nothing to run
        return EXIT_SETUP
    if isinstance(error, BadRequest):
        return EXIT_USAGE
    if isinstance(error, ShuttingDown) or error.code == "cancelled":
        return EXIT_INTERRUPTED
    return EXIT_TIMED_OUT if error.code == "timed_out" else EXIT_FAILED


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="demo-api", prog_name="demo-api")
def main() -> None:
    """Run Tenstorrent's simple_text_demo.py, over HTTP or once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # an answer may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
