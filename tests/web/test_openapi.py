"""The OpenAPI document says what the server does, and so does its page."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.doc_pages import PAGES as DOCS
from support.doc_pages import REFERENCE, error_family
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.serving import Server, application
from support.sse import events

from demo_api import errors
from demo_api.config import Settings
from demo_api.direct import DirectEngine
from demo_api.web.error_handlers import endpoints

ENGINES = ["demo", "direct"]
STREAM = "text/event-stream"
PAGES = {"GET /", "GET /docs"}


def _app(settings: Callable[..., Settings], engine: str) -> Any:
    chosen = settings(engine=engine)
    return application(chosen, DirectEngine(EchoModel(), chosen) if engine == "direct" else EchoRunner())


@pytest.fixture(params=ENGINES)
def described(request: pytest.FixtureRequest, settings: Callable[..., Settings]) -> dict[str, Any]:
    """The document of each engine."""
    told: dict[str, Any] = _app(settings, request.param).test_client().get("/openapi.json").get_json()
    return told


@pytest.fixture
def server(serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    return serve(settings(), EchoRunner())


def _operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _contents(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every body, of requests and of answers: where it is, its media type, and what is said of it."""
    for name, operation in _operations(described):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name}, body", media, content
        for status, response in operation["responses"].items():
            for media, content in response["content"].items():
                yield f"{name}, {status}", media, content


class Strict:
    """Checks values against the document, in which no field is allowed that it does not name."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._components: dict[str, Any] = json.loads(json.dumps(described["components"]))
        for schema in self._components["schemas"].values():
            schema.setdefault("additionalProperties", False)

    def check(self, schema: dict[str, Any], value: object) -> None:
        Draft202012Validator({**schema, "components": self._components}).validate(value)

    def check_stream(self, schema: dict[str, Any], text: str) -> int:
        told = [dict(line.split(": ", 1) for line in block.split("\n") if line) for block in text.split("\n\n")]
        found = [event for event in told if "data" in event]
        for event in found:
            (kind,) = [each for each in schema["anyOf"] if self._is(each, event)]
            assert kind
        return len(found)

    def _is(self, kind: dict[str, Any], event: dict[str, str]) -> bool:
        """Whether an event is of this kind, its data included, which a validator takes for a text."""
        if not Draft202012Validator(kind).is_valid(event):
            return False
        data = kind["properties"]["data"]
        if "contentSchema" not in data:
            return True
        whole = {**data["contentSchema"], "components": self._components}
        return event["data"] != "[DONE]" and Draft202012Validator(whole).is_valid(json.loads(event["data"]))


def test_the_document_is_valid(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(described).validate()
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_route_is_described_and_every_description_has_a_route(
    settings: Callable[..., Settings], engine: str
) -> None:
    app = _app(settings, engine)
    told = app.test_client().get("/openapi.json").get_json()
    names = {re.sub(r"\{(\w+)\}", r"<\1>", name) for name, _ in _operations(told)}
    assert sorted(names | PAGES) == endpoints(app)
    assert any("/runs" in name for name in names) is (engine == "demo")


def test_the_reference_has_no_route_that_is_not_there(settings: Callable[..., Settings]) -> None:
    rows = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`]+)` \|", DOCS[REFERENCE], re.M)
    assert sorted(rows) == endpoints(_app(settings, "demo"))


def test_every_operation_says_what_it_is(described: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in _operations(described)]
    assert len(set(ids)) == len(ids)
    for name, operation in _operations(described):
        assert re.fullmatch("[a-z]+(_[a-z]+)*", operation["operationId"])
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert {"500", "429"} <= operation["responses"].keys(), name
        assert ("401" in operation["responses"]) is (operation.get("security") != []), name


def test_every_body_and_every_answer_has_an_example(described: dict[str, Any]) -> None:
    without = {where for where, _, content in _contents(described) if not content.get("examples")}
    assert {where for where in without if where[-3:] not in ("413", "415")} <= {"GET /openapi.json, 200"}


def test_every_example_is_as_its_schema_says(described: dict[str, Any]) -> None:
    strict = Strict(described)
    for where, media, content in _contents(described):
        for example in content.get("examples", {}).values():
            if "$ref" in example:
                example = described["components"]["examples"][example["$ref"].rpartition("/")[2]]
            if media == STREAM:
                assert strict.check_stream(content["schema"], example["value"]) > 2, where
            else:
                strict.check(content["schema"], example["value"])


def _example(described: dict[str, Any]) -> Any:
    """The example of a body as JSON; None where none is shown."""
    examples = described.get("content", {}).get("application/json", {}).get("examples", {})
    return next((example["value"] for example in examples.values()), None)


def _fields(value: object, other: object) -> object:
    """The names of a value's fields at every depth, except below what the other value has no object for."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {name: _fields(each, other.get(name)) for name, each in value.items()}
    if isinstance(value, list) and isinstance(other, list) and other:
        return _fields(value[0], other[0])
    return None


def test_the_examples_have_the_fields_of_real_answers(server_of_each_engine: Server) -> None:
    server = server_of_each_engine
    compared = set()
    for name, operation in _operations(server.get("/openapi.json").json()):
        method, path = name.split(" ")
        body = _example(operation.get("requestBody", {}))
        if path.startswith("/v1/") and body:
            body["model"] = "echo"
        path = path.format(run_id=server.chat("Hello").json()["run_id"], model="echo")
        answer = requests.request(method, f"{server.url}{path}", json=body, timeout=60)
        example = _example(operation["responses"][str(answer.status_code)]) if answer.ok else None
        if example and (name, server.settings.engine) != ("GET /health", "demo"):  # of which the echo says less
            assert _fields(example, answer.json()) == _fields(answer.json(), example), name
            compared.add(operation["operationId"])
    both = {"get_livez", "get_readyz", "chat", "list_models", "retrieve_model", "create_chat_completion"}
    of_one = {"demo": {"create_runs", "list_runs", "get_run"}, "direct": {"get_health", "create_completion"}}
    assert compared == both | of_one[server.settings.engine]


def test_every_error_code_is_in_a_document(settings: Callable[..., Settings]) -> None:
    told = "".join(_app(settings, engine).test_client().get("/openapi.json").get_data(True) for engine in ENGINES)
    codes = {error.code for error in error_family(errors.DemoApiError)} | set(errors.RUN_CODES)
    assert {code for code in codes if f'"{code}"' not in told} == set()


def test_what_the_real_demo_tells_is_what_the_document_says(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    server = serve(settings(llama_dir=model_dir))
    described = server.get("/openapi.json").json()
    strict = Strict(described)
    accepted = requests.post(f"{server.url}/runs", json={"prompt": "Count to 20.", "max_tokens": 40}, timeout=60)

    def schema(path: str, method: str, status: str, media: str = "application/json") -> dict[str, Any]:
        found: dict[str, Any] = described["paths"][path][method]["responses"][status]["content"][media]["schema"]
        return found

    strict.check(schema("/runs", "post", "202"), accepted.json())
    run_id = accepted.json()["run_id"]
    streamed = requests.get(f"{server.url}/runs/{run_id}/events", timeout=100).text
    strict.check_stream(schema("/runs/{run_id}/events", "get", "200", STREAM), streamed)
    kinds = {kind for _, kind, _ in events(f"{server.url}/runs/{run_id}/events")}
    assert kinds == {"queued", "started", "phase", "progress", "text", "done"}
    strict.check(schema("/runs/{run_id}", "get", "200"), server.get(f"/runs/{run_id}").json())
    strict.check(schema("/runs", "get", "200"), server.get("/runs").json())
    health = server.get("/health").json()
    strict.check(schema("/health", "get", "200"), health)
    example = _example(described["paths"]["/health"]["get"]["responses"]["200"])
    assert _fields(example, health) == _fields(health, example)


def _commands(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'<pre class="command"[^>]*>(.*?)</pre>', page, re.S)]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_command_of_the_page_runs(
    serve: Callable[..., Server], settings: Callable[..., Settings], engine: str
) -> None:
    chosen = settings(engine=engine)
    if engine == "direct":
        direct = DirectEngine(EchoModel(), chosen)
        direct.start()
        direct.wait_until_loaded()
        server = serve(chosen, direct)
        run_id = ""
    else:
        server = serve(chosen, EchoRunner())
        run_id = server.chat("Hello").json()["run_id"]
    commands = _commands(server.get("/docs").text)
    assert len(commands) == len(list(_operations(server.get("/openapi.json").json())))
    refused = {
        "/log": b"no_log",
        "/cancel": b"run_ended",
        "/v1/completions": b"model_not_found" if engine == "direct" else b"bad_request",  # the demo continues no text
        "/v1/chat": b"model_n",
        "/v1/models/": b"model_not_found",
    }
    for line in commands:
        words = shlex.split(line.replace("RUN_ID", run_id))
        done = subprocess.run([*words, "--silent", "--fail-with-body"], capture_output=True, timeout=30, check=False)
        expected = [code for path, code in refused.items() if path in line]  # an echo has no log, and another name
        assert (done.returncode != 0) is bool(expected), (line, done.stdout)
        assert all(code in done.stdout for code in expected), (line, done.stdout)


def test_the_page_needs_no_script_and_nothing_from_elsewhere(server: Server) -> None:
    answer = server.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", answer.text)
    for target in re.findall(r'(?:src|href)="([^"#]+)', answer.text):
        assert server.get(f"/{target}").status_code == 200, target
    names = re.findall(r'\bid="([^"]+)"', answer.text)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= set(names)


def test_the_page_says_which_values_a_field_takes(server: Server) -> None:
    page = re.sub(r"<[^>]+>", "", html.unescape(server.get("/docs").text))
    for words in (
        "string or null, 1 to 1,000 characters or list of string",
        "empty array or null",
        "list of MessagePart",
    ):
        assert words in page, words


HOSTILE_HOST = 'a"><script>alert(1)</script>;id;'


def test_a_hostile_host_is_text_on_the_page_where_every_host_will_do(settings: Callable[..., Settings]) -> None:
    app = application(settings(host="0.0.0.0", insecure=True), EchoRunner())
    answer = app.test_client().get("/docs", headers={"Host": HOSTILE_HOST})
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert all(len(shlex.split(line)) < 12 for line in _commands(answer.text))


def test_a_hostile_host_never_comes_to_the_page_on_loopback(server: Server) -> None:
    answer = requests.get(f"{server.url}/docs", headers={"Host": HOSTILE_HOST}, timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) == (421, "application/json")
