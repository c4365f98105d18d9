"""``demo-api model``: downloads the small model of the CPU edition, and says where it is."""

from __future__ import annotations

import sys

import click

from demo_api.cli.options import flags_of
from demo_api.config import Settings
from demo_api.demo import small_model as weights
from demo_api.errors import SetupError


@click.group()
def model() -> None:
    """Download and locate the CPU edition's small model."""


@model.command()
@flags_of(["model_dir"])
def pull(**flags: str | None) -> None:
    """Download the small model (100 MB), unless it is already there."""
    directory = Settings.load(flags).model_dir
    click.echo(weights.pull(directory, show_progress=sys.stderr.isatty()))


@model.command()
@flags_of(["model_dir"])
def path(**flags: str | None) -> None:
    """Print where the small model is, as a value for LLAMA_DIR."""
    directory = Settings.load(flags).model_dir
    found = weights.find(directory)
    if found is None:
        raise SetupError(f"The small model is not in {directory} yet.", next_step="Run `demo-api model pull`.")
    click.echo(found)
