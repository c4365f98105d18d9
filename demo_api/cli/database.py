"""``demo-api database``: upgrades the ledger's tables."""

from __future__ import annotations

import click

from demo_api.cli.options import flags_of
from demo_api.config import Settings
from demo_api.queue import open_database, schema


@click.group()
def database() -> None:
    """Upgrade the ledger's tables."""


@database.command()
@flags_of(["state_dir", "database_url", "session_url"])
def upgrade(**flags: str | None) -> None:
    """Upgrade the ledger's tables to this version; servers and workers of the version before go on."""
    found = open_database(Settings.load(flags), upgrades=True).found_version
    if found is None:
        click.echo(f"The ledger's tables were made: version {schema.VERSION}.")
    elif found < schema.VERSION:
        click.echo(f"The ledger's tables were upgraded from version {found} to {schema.VERSION}.")
    else:
        click.echo(f"The ledger's tables are of version {found}: there was nothing to do.")
