"""Writes for people: with colours and a moving cursor on a terminal, as plain text anywhere else."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


def console_of(stream: TextIO) -> Console:
    """A console on a stream. Where that is no terminal, not even FORCE_COLOR brings control codes into it."""
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, force_terminal=False, force_interactive=False)
