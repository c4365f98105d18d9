"""The documentation's tables say what the code says: nothing is missing, wrong, or no longer there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import requests
from support.doc_pages import PAGES, README, REFERENCE, code_words, error_family, table
from support.echo_runner import EchoRunner
from support.serving import Server

from demo_api import cli, create_app, errors
from demo_api.config import Settings, flag, flag_names, setting_names, variable
from demo_api.messages import STATUSES, Request, Timing
from demo_api.messages.health import DEVICE_STATES
from demo_api.web.error_handlers import HTTP_ERRORS, endpoints

ANSWER = json.loads(re.findall(r"```json\n(.*?)```", README, re.S)[0])


def test_the_routes_are_those_of_both_engines(settings: Callable[..., Settings]) -> None:
    served = {route for engine in ("demo", "direct") for route in endpoints(create_app(settings(engine=engine)))}
    documented = [code_words(row["method and path"])[0] for row in table(REFERENCE, "method and path", "what it does")]
    assert sorted(documented) == sorted(served)


# Settings


def _settings() -> dict[str, dict[str, str]]:
    return {
        code_words(row["variable"])[0]: row for row in table(REFERENCE, "flag", "variable", "default", "what it is")
    }


def test_the_settings_are_there_in_their_order_with_flag_and_description() -> None:
    documented = [(name, "".join(code_words(row["flag"])), row["what it is"]) for name, row in _settings().items()]
    assert documented == [
        (variable(name), flag(name) if name in flag_names() else "", Settings.model_fields[name].description)
        for name in setting_names()
    ]


def test_the_settings_have_the_defaults_of_the_code() -> None:
    for name in setting_names():
        default, shown = Settings.model_fields[name].default, _settings()[variable(name)]["default"]
        if isinstance(default, bool | int | float):
            assert shown == f"`{str(default).lower()}`", name
        elif isinstance(default, str):
            assert shown == (f"`{default}`" if default else ""), name
        elif isinstance(default, tuple):
            read = Settings.load({}, {variable(name): "".join(code_words(shown))})
            assert getattr(read, name) == default, name


# Fields


def _numbers(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))}


def _bounds(schema: dict[str, Any]) -> set[float]:
    limits = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength")
    return {float(schema[limit]) for limit in limits if limit in schema}


def test_the_fields_of_a_request_have_their_type_range_and_default() -> None:
    rows = {code_words(row["field"])[0]: row for row in table(REFERENCE, "field", "type", "range", "default")}
    schema = Request.model_json_schema()
    assert sorted(rows) == sorted(schema["properties"])
    for name, described in schema["properties"].items():
        kind = next((each for each in described.get("anyOf", []) if each["type"] != "null"), described)
        row, required = rows[name], name in schema.get("required", [])
        assert row["type"] == {"string": "text"}.get(kind["type"], kind["type"]) + (", required" if required else "")
        assert _bounds(kind) == _numbers(row["range"].partition(";")[0]), name
        if name == "temperature":  # each engine has its own, as the API's own description says
            assert _numbers(row["default"]) == _numbers(described["description"].partition("null is")[2])
        else:
            assert row["default"] == ("" if required else json.dumps(described["default"])), name


def test_the_fields_of_an_answer_are_there_in_their_order_and_its_times_among_them() -> None:
    rows = {row["field"]: row["what it is"] for row in table(REFERENCE, "field", "what it is")}
    assert [name for field in rows for name in code_words(field)] == list(ANSWER)
    assert set(Timing.__dataclass_fields__) <= set(code_words(rows["`timing`"]))


def test_the_readmes_answer_has_the_fields_that_an_answer_has(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    real = serve(settings(llama_dir=model_dir)).chat("What is 2+2?", max_tokens=32, temperature=0).json()
    assert list(ANSWER) == list(real)
    assert list(ANSWER["timing"]) == list(real["timing"])
    assert "4" in real["response"]  # the words may differ from one processor's arithmetic to another's


def test_the_fields_and_the_statuses_of_a_run_are_those_that_a_run_has(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    engine = EchoRunner(paused=True)
    server = serve(settings(), engine)
    run_id = requests.post(f"{server.url}/runs", json={"prompt": "Hello"}, timeout=60).json()["run_id"]
    record = server.get(f"/runs/{run_id}").json()
    engine.let_go.set()
    rows = {row["field"]: row["what it is"] for row in table("runs.md", "field", "what it is")}
    assert sorted(name for field in rows for name in code_words(field)) == sorted(record)
    assert code_words(rows["`status`"]) == list(STATUSES)


def test_the_states_of_a_device_are_there_in_their_order() -> None:
    rows = table("devices.md", "state", "what it means", "what happens next")
    assert [code_words(row["state"])[0] for row in rows] == list(DEVICE_STATES)


# Commands


def _commands(group: click.Group, prefix: str = "demo-api") -> dict[str, click.Command]:
    commands: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command, below = group.get_command(context, name), f"{prefix} {name}"
        assert command is not None
        commands |= _commands(command, below) if isinstance(command, click.Group) else {below: command}
    return commands


def test_the_commands_are_there_with_flags_that_they_have() -> None:
    commands = _commands(cli.main)
    documented = []
    for row in table(REFERENCE, "command", "what it does"):
        (usage,) = code_words(row["command"])
        (name,) = [name for name in commands if f"{usage} ".startswith(f"{name} ")]
        documented.append(name)
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", "".join(row.values()))) <= known, name
    assert sorted(documented) == sorted(commands)


def test_the_exit_codes_mean_what_the_code_means_by_them() -> None:
    rows = {int(row["exit code"]): row["what it means"] for row in table(REFERENCE, "exit code", "what it means")}
    begins = {
        0: "done",
        cli.EXIT_FAILED: "the run failed",
        cli.EXIT_USAGE: "wrong use",
        cli.EXIT_SETUP: "not set up",
        cli.EXIT_TIMED_OUT: "the run timed out",
        cli.EXIT_INTERRUPTED: "interrupted",
    }
    assert {value for name, value in vars(cli).items() if name.startswith("EXIT_")} | {0} == set(rows)
    for code, meaning in rows.items():
        assert meaning.startswith(begins[code]), code


# Errors


def test_the_errors_of_a_request_have_their_codes_and_statuses() -> None:
    rows = table("errors.md", "status", "code", "when", "more fields")
    documented = [(int(row["status"]), code_words(row["code"])[0]) for row in rows]
    raised = {(each.status_code, each.code) for each in error_family(errors.DemoApiError)}
    raised |= {(status, code) for status, (code, _) in HTTP_ERRORS.items()}
    assert sorted(documented) == sorted(raised - {(500, "internal_error")})


def test_the_errors_of_a_run_have_their_codes_and_statuses() -> None:
    codes = [code_words(row["code"])[0] for row in table("errors.md", "code", "what happened", "what helps")]
    assert sorted(codes) == sorted({*errors.RUN_CODES, "storage_full", "not_set_up"})
    statuses = {code: errors.RunFailed("It failed.", code=code).status_code for code in codes}
    said = re.findall(r"`(\w+)`,? which is (\d+)", PAGES["errors.md"])
    assert {code: status for code, status in statuses.items() if status != 500} == {
        code: int(status) for code, status in said
    }
