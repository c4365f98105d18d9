"""OpenAI's routes, asked by the official client."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.serving import Server, serving
from support.waiting import until

from demo_api.config import Settings
from demo_api.direct import DirectEngine

USER = {"role": "user", "content": "one two three"}


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]


def test_the_model_is_found_by_its_name(client: openai.OpenAI) -> None:
    assert client.models.retrieve("echo").model_dump() == next(iter(client.models.list())).model_dump()


@pytest.mark.parametrize("name", ["gpt-4", "meta-llama/Llama-3.2-1B-Instruct", "echo/", "é"])
def test_another_model_is_not_found(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match=r"There is no model .* here, but 'echo'") as caught:
        client.models.retrieve(name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_the_name_of_a_model_may_have_slashes(serve: Callable[..., Server], settings: Callable[..., Settings]) -> None:
    model = EchoModel()
    model.name = "meta-llama/Llama-3.2-1B-Instruct"
    server = serve(settings(engine="direct"), DirectEngine(model, settings()))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        assert client.models.retrieve(model.name).id == model.name
    assert server.get(f"/v1/models/{model.name}").json()["id"] == model.name


def test_a_model_that_is_being_loaded_is_waited_for(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    model = EchoModel()
    model.name = ""
    model.let_load.clear()
    server = serve(settings(engine="direct"), DirectEngine(model, settings()))
    assert server.get("/health").json()["model"] is None
    for path in ("/v1/models", "/v1/models/echo"):
        answer = server.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")
        assert answer.headers["Retry-After"]
    model.name = "echo"
    model.let_load.set()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2, timeout=60) as client:
        assert client.models.retrieve("echo").id == "echo"


def test_a_chat_completion(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    answer = client.chat.completions.create(model="echo", messages=[USER], max_tokens=8, temperature=0, user="me", n=1)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "one two three")
    assert answer.id.startswith("chatcmpl-")
    if server_of_each_engine.service.engine_name == "direct":
        assert choice.finish_reason == "stop"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)


def test_a_streamed_chat_completion(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="echo", messages=[USER], stream=True, stream_options=options))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "one two three"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    if server_of_each_engine.service.engine_name == "direct":
        assert pieces == ["one", " two", " three"]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens == 6


CONVERSATIONS = {
    "a system message": [{"role": "system", "content": "Be brief."}, USER],
    "several turns": [USER, {"role": "assistant", "content": "four"}, USER],
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_is_answered_or_refused_but_never_cut(
    client: openai.OpenAI, server_of_each_engine: Server, messages: list[Any]
) -> None:
    def create() -> Any:
        return client.chat.completions.create(model="echo", messages=messages)

    if server_of_each_engine.service.engine_name == "direct":
        assert create().choices[0].message.content == "one two three"
        return
    with pytest.raises(openai.BadRequestError) as caught:
        create()
    assert (caught.value.code, caught.value.param) == ("bad_request", "messages")


def test_a_text_completion(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    if server_of_each_engine.service.engine_name == "demo":
        with pytest.raises(openai.BadRequestError, match="raw text"):
            client.completions.create(model="echo", prompt="one two")
        return
    answer = client.completions.create(model="echo", prompt="one two", max_tokens=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one", "length")
    chunks = list(client.completions.create(model="echo", prompt="one two", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one two"


# The stop sequences, what is answered to "one two three four", and how many words the model has made by then.
STOPPED: dict[str, tuple[str | list[str], str, int]] = {
    "a word": (["three"], "one two", 3),
    "a text instead of a list": ("three", "one two", 3),
    "across tokens": (["e two th"], "on", 3),
    "the first of several": (["four", "two", "three"], "one", 2),
    "only its beginning": (["three five"], "one two three four", 4),
    "its beginning at the end": (["four five"], "one two three four", 4),
    "the first word": (["one"], "", 1),
}


@pytest.mark.parametrize(("stop", "answer", "words"), STOPPED.values(), ids=STOPPED)
@pytest.mark.parametrize("kind", ["chat", "raw text"])
@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "an answer"])
def test_an_answer_ends_before_a_stop_sequence_and_so_does_the_decoding(
    direct: openai.OpenAI, echo: EchoModel, stop: Any, answer: str, words: int, kind: str, *, stream: bool
) -> None:
    before = echo.words
    asked: dict[str, Any] = {"model": "echo", "stop": stop, "stream": stream}
    if kind == "chat":
        made = direct.chat.completions.create(messages=[{"role": "user", "content": "one two three four"}], **asked)
    else:
        made = direct.completions.create(prompt="one two three four", **asked)
    choices = [part.choices[0] for part in made] if stream else made.choices
    if kind == "chat":
        text = "".join((choice.delta if stream else choice.message).content or "" for choice in choices)
    else:
        text = "".join(choice.text for choice in choices)
    assert text.strip() == answer
    assert choices[-1].finish_reason == "stop"
    assert echo.words - before == words


def test_text_that_may_become_a_stop_sequence_is_held_back(direct: openai.OpenAI) -> None:
    chunks = direct.completions.create(model="echo", prompt="one two three four", stop=["two threat"], stream=True)
    assert [chunk.choices[0].text for chunk in chunks] == ["one", " ", "two three", " four", ""]


def test_the_demo_cannot_stop_at_a_text_and_says_so(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    if server_of_each_engine.service.engine_name == "direct":
        return
    with pytest.raises(openai.BadRequestError, match="'stop' cannot be used: the demo has no stop") as caught:
        client.chat.completions.create(model="echo", messages=[USER], stop=["x"])
    assert caught.value.param == "stop"


TOO_LONG = "word " * 3000
ROUTES: dict[str, tuple[str, dict[str, Any], str]] = {
    "/chat": ("/chat", {"prompt": TOO_LONG}, "prompt"),
    "/chat/stream": ("/chat/stream", {"prompt": TOO_LONG}, "prompt"),
    "a chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": TOO_LONG}]}, "messages"),
    "a conversation": (
        "/v1/chat/completions",
        {"messages": [{"role": "system", "content": TOO_LONG}, USER]},
        "messages",
    ),
    "raw text": ("/v1/completions", {"prompt": TOO_LONG}, "prompt"),
}


@pytest.mark.parametrize(("path", "body", "field"), ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "an answer"])
def test_a_prompt_that_is_too_long_is_refused_before_a_stream_begins(
    real: Server, path: str, body: dict[str, Any], field: str, *, stream: bool
) -> None:
    if path.startswith("/v1/"):
        body = {**body, "model": real.service.describe()["model"], "stream": stream}
    answer = requests.post(f"{real.url}{path}", json=body, timeout=60)
    assert answer.status_code == 400
    error = answer.json()
    named = error["error"] if path.startswith("/v1/") else {**error, "message": error["error"], "param": error["field"]}
    assert (named["code"], named["param"]) == ("bad_request", field)
    assert re.match(r"The prompt is too long: it has \d{4} tokens, and the model takes 2048", named["message"])


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_too_many_tokens_for_the_demos_model_are_named_as_the_client_does(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], tmp_path: Path, name: str
) -> None:
    model = tmp_path / "Short-1B-Instruct"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    server = serve(child_settings("passes", "2026", hf_model=str(model)))
    body = {"model": model.name, "messages": [USER], name: 2048}
    error = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()["error"]
    assert (error["code"], error["param"]) == ("bad_request", name)
    assert error["message"] == "An answer of 2048 tokens leaves no room for the prompt: this model has 2048 for both."


def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=[USER])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "'echo'" in str(caught.value)


def test_a_run_that_fails_is_told(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    broken = {"role": "user", "content": "break" if server_of_each_engine.service.engine_name == "direct" else "fail"}
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="echo", messages=[broken])
    assert caught.value.code in ("internal_error", "demo_failed")
    with pytest.raises(openai.APIError, match=r"broke|failed"):
        list(client.chat.completions.create(model="echo", messages=[broken], stream=True))


def test_a_run_that_has_failed_is_not_repeated_by_the_client(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(), EchoRunner())
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2, timeout=60) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "fail"}])
    assert caught.value.response.headers["X-Should-Retry"] == "false"
    assert len(server.get("/runs").json()["runs"]) == 1
    assert "X-Should-Retry" not in server.chat("fail").headers, "it is OpenAI's"


def test_what_was_never_run_may_be_repeated(serve: Callable[..., Server], settings: Callable[..., Settings]) -> None:
    server = serve(settings(max_queue=1, max_batch=1), EchoRunner(paused=True))
    for waiting in (0, 1):
        requests.post(f"{server.url}/runs", json={"prompt": "a"}, timeout=60)
        until(lambda: server.get("/health").json()["queue"]["running"] == 1)
        until(lambda: server.get("/health").json()["queue"]["waiting"] == waiting)  # noqa: B023
    body = {"model": "echo", "messages": [USER]}
    refused = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert refused.headers["Retry-After"]
    assert "X-Should-Retry" not in refused.headers


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/completions"])
def test_every_error_below_v1_has_openais_shape(server_of_each_engine: Server, path: str) -> None:
    error = requests.get(f"{server_of_each_engine.url}{path}", timeout=60).json()["error"]
    assert {"message", "type", "param", "code", "next_step", "request_id"} <= set(error)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[Server]:
    """A direct server with the real model."""
    flags = {"engine": "direct", "llama_dir": model_dir, "slots": 1, "port": 0}
    with serving() as start:
        server = start(Settings.load({**flags, "state_dir": tmp_path_factory.mktemp("state")}, {}))
        server.service.wait_until_loaded()  # type: ignore[attr-defined]
        yield server


def test_the_real_model_answers_a_conversation(real: Server) -> None:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        (model,) = client.models.list()
        turns: list[Any] = [
            {"role": "system", "content": "You answer with numbers only."},
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "And 3+3?"},
        ]
        answer = client.chat.completions.create(model=model.id, messages=turns, max_tokens=16)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 30
        text = client.completions.create(model=model.id, prompt="One, two, three,", max_tokens=3)
        assert text.choices[0].text.startswith(" four")
        text = client.completions.create(model=model.id, prompt="One, two, three,", max_tokens=32, stop=["ve"])
        assert (text.choices[0].text, text.choices[0].finish_reason) == (" four, fi", "stop")
        assert text.usage is not None
        assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (6, 3)
    raw = requests.post(
        f"{real.url}/v1/chat/completions",
        json={"model": model.id, "messages": [USER], "stream": True, "max_tokens": 4},
        timeout=60,
    )
    assert raw.headers["Content-Type"].startswith("text/event-stream")
    lines = [line for line in raw.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line[len("data: ") :]) for line in lines[:-1])


@pytest.mark.parametrize("generation", ["2025", "2026"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_demo_counts_the_tokens_of_prompt_and_answer(
    serve: Callable[..., Server], child_settings: Callable[..., Settings], generation: str, stream: bool
) -> None:
    server = serve(child_settings("passes", generation, warm="off"))
    options = {"stream_options": {"include_usage": True}} if stream else {}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        [model] = client.models.list()
        asked = client.chat.completions.create(model=model.id, messages=[USER], stream=stream, **options)
        usage = list(asked)[-1].usage if stream else asked.usage
    # The child takes words for tokens, and has a template of ten.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (13, 4, 17)
