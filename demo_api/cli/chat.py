"""``demo-api chat``: a conversation with the model in memory, on a terminal or from a pipe."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import click
import requests

from demo_api.cli import EXIT_INTERRUPTED
from demo_api.cli.console import steps_on
from demo_api.cli.options import DEMO, GroupedCommand, flags_of
from demo_api.cli.visible import visible
from demo_api.client import Client, Piece, ServerError, reason
from demo_api.config import Settings, flag
from demo_api.direct import DirectEngine, make_model
from demo_api.errors import BadRequest, DemoApiError, RunFailed
from demo_api.process.stopping import stop_on_signals
from demo_api.web.openai.requests import ChatCompletions
from demo_api.web.parse import parse_body

_SETTINGS = (*DEMO, "max_seq_len", "devices", "run_timeout", "stop_grace", "state_dir")
_HELP = "/new starts a new conversation, /quit or Ctrl-D ends the program, Ctrl-C stops an answer."

Message = dict[str, str]
Answering = Callable[[Sequence[Message]], Generator[Piece]]
"""Answers a conversation, piece by piece. Closing it cancels the answer."""


@click.command(cls=GroupedCommand)
@click.option("--url", metavar="URL", help="Server with the direct engine; without one, the model is loaded here.")
@click.option("--max-tokens", type=int, default=512, show_default=True, help="Most tokens in an answer (1 to 2048).")
@click.option("--temperature", type=float, help="0.0 to 2.0, default 0, which gives the same answer every time.")
@click.option("--top-p", type=float, help="Share of the probability to sample from (above 0, up to 1; default 0.9).")
@click.option("--seed", type=int, help="Makes a sampled answer repeatable, if the model takes a seed.")
@flags_of(_SETTINGS)
def chat(url: str | None, **options: Any) -> None:
    """Chat with the model in memory; each answer appears as it is generated.

    /new starts a new conversation, /quit or Ctrl-D ends the program, and Ctrl-C stops an answer. In a pipe, every line
    is a message, and the first error ends the program.
    """
    logging.basicConfig(level=logging.ERROR, format="demo-api: %(message)s")
    flags = {name: options.pop(name) for name in _SETTINGS}
    sampling = {name: value for name, value in options.items() if value is not None}
    given = [flag(name) for name, value in flags.items() if value is not None]
    if url is not None and given:
        raise BadRequest(
            f"{', '.join(given)} cannot be used with --url.",
            next_step="The server uses the settings it was started with.",
        )
    settings = Settings.load({**flags, "engine": "direct", "slots": 1})
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: sys.exit(EXIT_INTERRUPTED))  # what was opened is closed on the way out
    model = _model_here(settings, sampling) if url is None else _model_at(url, settings.key, sampling)
    with model as (name, answering):
        if sys.stdin.isatty():
            click.echo(f"{name}\n{_HELP}", err=True)
        _talk(Conversation(answering))


@contextmanager
def _model_at(url: str, key: str | None, sampling: dict[str, object]) -> Iterator[tuple[str, Answering]]:
    """The model of a server, with its name.

    Raises:
        BadRequest: its engine takes no conversation.
    """
    client = Client(url, key=key)
    with _as_ours(client):
        if client.health().get("engine") != "direct":
            raise BadRequest(
                f"The server at {client.url} has the demo engine, which takes single prompts and no conversation.",
                next_step="Give the address of a server with `--engine direct`, or leave --url out.",
            )
        with steps_on(sys.stderr) as show:
            show(f"waiting for the model of {client.url}")
            name = client.model()

    def answering(messages: Sequence[Message]) -> Generator[Piece]:
        with _as_ours(client):
            yield from client.converse(messages, model=name, **sampling)

    yield name, answering


@contextmanager
def _as_ours(client: Client) -> Iterator[None]:
    """Turns what a client raises into the errors that all commands show alike."""
    try:
        yield
    except ServerError as error:
        kind = BadRequest if error.status == BadRequest.status_code else DemoApiError
        raise kind(str(error), next_step=error.next_step) from None
    except requests.RequestException as error:
        raise DemoApiError(
            f"The server at {client.url} does not answer: {reason(error)}.",
            next_step="Start it with `demo-api serve --engine direct`, or leave --url out.",
        ) from None


@contextmanager
def _model_here(settings: Settings, sampling: dict[str, object]) -> Iterator[tuple[str, Answering]]:
    """The model, loaded into this process, with its name.

    Raises:
        SetupError: it cannot be loaded.
    """
    engine = DirectEngine(make_model(settings), settings)

    def answering(messages: Sequence[Message]) -> Generator[Piece]:
        body = json.dumps({"model": engine.models()[0], "messages": messages, **sampling})
        run = engine.begin(parse_body(ChatCompletions, body.encode()).question())
        with closing(run.events()) as events:
            try:
                for event in filter(None, events):
                    yield Piece(str(event[1].data.get("added", "")))
            finally:
                run.leave()
        result = run.run().result
        if result is not None and result.failure is not None:
            raise RunFailed(result.failure.message, code=result.failure.code, next_step=result.failure.next_step)
        yield Piece("", result.finish_reason if result else None)

    try:
        engine.start()
        with steps_on(sys.stderr) as show:
            show("loading the model")
            engine.wait_until_loaded()
        yield engine.describe()["model"] or "", answering
    finally:
        stop_on_signals(lambda: None, engine.hurry)  # the device is closed, whatever comes meanwhile
        engine.close()


class Conversation:
    """What was said so far, and what to do with the next line."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._messages: list[Message] = []

    def hear(self, line: str) -> bool:
        """Answers a message, or obeys a command.

        Returns:
            whether the conversation goes on.

        Raises:
            BadRequest: there is no such command, or the conversation has become too long.
            DemoApiError: there is no answer.
            KeyboardInterrupt: the answer was stopped. What there was of it belongs to the conversation.
        """
        word = line.strip()
        if word == "/new":
            self._messages.clear()
        elif re.fullmatch(r"/\w+", word) and word != "/quit":
            raise BadRequest(f"There is no command {word}.", next_step=_HELP)
        elif word and word != "/quit":
            self._answer(line)
        return word != "/quit"

    def _answer(self, line: str) -> None:
        self._messages.append({"role": "user", "content": line})
        said, finish = "", None
        on_terminal = sys.stdout.isatty()
        try:
            with closing(self._answering(self._messages)) as pieces:
                for piece in pieces:
                    said += piece.text
                    finish = piece.finish_reason
                    click.echo(visible(piece.text, keep="\n\t") if on_terminal else piece.text, nl=False)
        finally:
            if said.strip():
                click.echo()
                self._messages.append({"role": "assistant", "content": said.strip()})
            else:
                self._messages.pop()
        if finish == "length":
            click.echo("(cut at --max-tokens, or at the end of the model's context)", err=True)


def _talk(conversation: Conversation) -> None:
    """Reads line after line. On a terminal, only the user ends it; elsewhere, so does the first error."""
    on_terminal = sys.stdin.isatty()
    if on_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401 (lines can be edited, and had again)
    goes_on = True
    while goes_on:
        try:
            goes_on = conversation.hear(input("> ") if on_terminal else _next_line())
        except EOFError:
            goes_on = False
            if on_terminal:
                click.echo(err=True)
        except KeyboardInterrupt:
            if not on_terminal:
                raise
            click.echo("\n(stopped; /quit or Ctrl-D ends the program)", err=True)
        except DemoApiError as error:
            if not on_terminal:
                raise
            click.echo(visible(f"{error}\n{error.next_step}", keep="\n\t"), err=True)


def _next_line() -> str:
    try:
        line = sys.stdin.buffer.readline().decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"Standard input is no text: {error.reason}.", next_step="Send text in UTF-8.") from None
    if not line:
        raise EOFError
    return line.rstrip("\r\n")
