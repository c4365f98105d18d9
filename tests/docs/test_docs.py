"""The documentation names everything that there is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from support.doc_pages import PAGES, README, REFERENCE, error_family
from support.serving import Server

from demo_api import bodies, cli, create_app, errors
from demo_api.config import Settings, flag, flag_names, setting_names, variable
from demo_api.messages import DEVICE_STATES, STATUSES, Request, Run, Timing
from demo_api.web.error_handlers import endpoints


def _commands(group: click.Group, prefix: str = "demo-api") -> list[str]:
    names = []
    for name, command in group.commands.items():
        names += _commands(command, f"{prefix} {name}") if isinstance(command, click.Group) else [f"{prefix} {name}"]
    return names


def test_every_route_is_in_the_reference(settings: Callable[..., Settings]) -> None:
    for endpoint in endpoints(create_app(settings())):
        assert f"| `{endpoint}` |" in PAGES[REFERENCE]


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_is_in_the_reference_with_its_description(name: str) -> None:
    flags = f"`{flag(name)}`" if name in flag_names() else ""
    row = next(line for line in PAGES[REFERENCE].splitlines() if line.startswith(f"| {flags} | `{variable(name)}` |"))
    description = Settings.model_fields[name].description
    assert description
    assert description in row
    default = Settings.model_fields[name].default
    if isinstance(default, int | float):
        assert f"| `{str(default).lower()}` |" in row


@pytest.mark.parametrize("command", _commands(cli.main))
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"| `{command}" in PAGES[REFERENCE]


@pytest.mark.parametrize("field", [*Request.model_fields, *Timing.__dataclass_fields__])
def test_every_field_is_in_the_reference(field: str) -> None:
    assert f"`{field}`" in PAGES[REFERENCE]


@pytest.mark.parametrize("code", [value for name, value in vars(cli).items() if name.startswith("EXIT_")])
def test_every_exit_code_is_in_the_reference(code: int) -> None:
    assert re.search(rf"^\| {code} \|", PAGES[REFERENCE], re.M)


@pytest.mark.parametrize(
    "code", sorted({error.code for error in error_family(errors.DemoApiError)} | set(errors.RUN_CODES))
)
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in PAGES["errors.md"]


@pytest.mark.parametrize("field", list(bodies.record(Run("a", Request(prompt="a")), "demo")))
def test_every_field_of_a_run_is_documented(field: str) -> None:
    assert re.search(rf"^\|.*`{field}`.*\|", PAGES["runs.md"], re.M)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_documented(status: str) -> None:
    assert f"`{status}`" in PAGES["runs.md"]


@pytest.mark.parametrize("state", DEVICE_STATES)
def test_every_state_of_a_device_is_documented(state: str) -> None:
    assert f"| `{state}` |" in PAGES["devices.md"]


def test_the_readmes_answer_has_the_fields_that_an_answer_has(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    shown = json.loads(re.findall(r"```json\n(.*?)```", README, re.S)[0])
    real = serve(settings(llama_dir=model_dir)).chat("What is 2+2?", max_tokens=32, temperature=0).json()
    assert list(shown) == list(real)
    assert list(shown["timing"]) == list(real["timing"])
    assert "4" in real["response"]  # the words may differ from one processor's arithmetic to another's
