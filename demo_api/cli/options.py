"""The settings as flags of a command."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from demo_api.config import Settings, flag, variable

OF_SERVERS = (
    *("host", "port", "max_queue", "keys_file", "insecure", "hosts", "rate_limit", "max_body"),
    *("log_format", "log_prompts"),
)
"""Settings that mean nothing where no server is started."""


def flags_of(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a flag for each of these settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(list(names)):
            field = Settings.model_fields[name]
            alone = "true" if field.annotation is bool else None  # what the flag says without a value
            help_text = f"{field.description} [{variable(name)}]"
            option = click.option(flag(name), name, metavar="VALUE", is_flag=False, flag_value=alone, help=help_text)
            command = option(command)
        return command

    return decorate
