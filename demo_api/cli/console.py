"""Output for people: colours and live updates on a terminal, plain text anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console


def console_of(stream: TextIO) -> Console:
    """A console on a stream. Unless that is a terminal, it writes no control codes, even with FORCE_COLOR."""
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, force_terminal=False, force_interactive=False)


@contextmanager
def steps_on(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Gives what shows each step: one line that changes on a terminal, a line for each step anywhere else."""
    if stream.isatty():
        with console_of(stream).status("") as status:
            yield status.update
    else:
        yield lambda step: print(step, file=stream, flush=True)
