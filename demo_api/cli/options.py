"""The settings as flags of a command, in groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from demo_api.config import CPU_DEMO_HOME, Settings, flag, variable
from demo_api.config.values import DeviceSetting

DEMO = ("demo_home", "llama_dir", "hf_model", "python", "model_dir")
DIRECT = ("slots", "max_seq_len")
RUNS = ("run_timeout", "max_output", "max_batch")
WARM = ("warm", "warm_idle")
DEVICES = ("devices", "stop_grace")
RESETS = ("reset_command", "reset_check", "reset_timeout")
STATE = ("state_dir", "node", "database_url", "session_url", "session_timeout", "keep_runs", "keep_days")

GROUPS: dict[str, Collection[str]] = {
    "Server": ("engine", "host", "port", "metrics_port", "drain", "fail_fast", "log_format", "log_prompts"),
    "Clients": ("keys_file", "insecure", "hosts", "cors_origins", "rate_limit", "run_rate_limit", "max_body"),
    "Demo and model": DEMO,
    "Direct engine": DIRECT,
    "Runs": ("max_queue", "accept_without_worker", *RUNS, "cancel_on_disconnect", *WARM),
    "Devices": (*DEVICES, *RESETS),
    "State": (*STATE, "lease"),
}
"""The flags of the settings, as `serve --help` shows them."""

OF_A_RUN = (*DEMO, *RUNS, *DEVICES, *STATE)
"""What matters to a command that runs the demo itself."""


class SettingFlag(click.Option):
    """The flag of a setting, which the help shows in its group."""

    def __init__(self, *names: Any, group: str, **looks: Any) -> None:
        super().__init__(*names, **looks)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has a section for each group of settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections, with the command's own options first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def flags_of(names: Collection[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a flag for each of these settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shown = [(group, name) for group, members in GROUPS.items() for name in members if name in names]
        for group, name in reversed(shown):
            command = click.option(flag(name), name, cls=SettingFlag, group=group, **_looks(name))(command)
        return command

    return decorate


def _looks(name: str) -> dict[str, Any]:
    """What click is told of a flag. Its value stays a text: ``Settings`` checks that, as it checks a variable's."""
    field = Settings.model_fields[name]
    default = _shown(field.get_default(call_default_factory=True))
    known = f"default: {default}; {variable(name)}" if default else variable(name)
    looks: dict[str, Any] = {"help": f"{field.description} [{known}]", "metavar": "VALUE"}
    kinds = list(_kinds(field.annotation))
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), None)
    if choices:
        looks |= {"type": click.Choice(choices), "metavar": None}
    elif Path in kinds:
        looks |= {"type": click.Path(readable=False), "metavar": "PATH"}  # a shell completes it
    elif bool in kinds:
        alone_says_all = field.default is False
        looks |= {"is_flag": False, "flag_value": "true", "metavar": "" if alone_says_all else "[true|false]"}
    return looks


def _kinds(annotation: Any) -> Iterator[Any]:
    """A type, and what it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for each in get_args(annotation):
            yield from _kinds(each)


def _shown(default: object) -> str | None:
    """A default as it would be given; None where the description says it, or where there is none."""
    if default in (None, False, (), CPU_DEMO_HOME):
        return None
    if isinstance(default, tuple):
        return " ".join(each.name if isinstance(each, DeviceSetting) else str(each) for each in default)
    return "true" if default is True else str(default)
