"""``demo-api parse``: reads what a run of the demo printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from demo_api import transcript
from demo_api.demo.prompt_files import PromptEntry, read_entries

_CHUNK = 2**20


@click.command()
@click.option("--prompts", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stdout", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stderr", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--exit-code", required=True, type=int, help="Exit code of the run; negative for the signal that ended it."
)
def parse(prompts: Path, stdout: Path, stderr: Path, exit_code: int) -> None:
    """Parse the output of a demo run into one JSON object."""
    asked = [entry.prompt for entry in read_entries(prompts, PromptEntry)]
    reading = transcript.parse(asked, _chunks(stdout), _chunks(stderr), exit_code)
    click.echo(json.dumps(reading.as_dict()))


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
