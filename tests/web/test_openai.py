"""OpenAI's routes, asked by the official client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from support.echo_model import EchoModel
from support.echo_runner import EchoRunner
from support.serving import Server

from demo_api.config import Settings
from demo_api.direct import DirectEngine

USER = {"role": "user", "content": "one two three"}


@pytest.fixture(params=["direct", "demo"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Server], settings: Callable[..., Settings]) -> Server:
    """A server of each engine, with a hand-written model that echoes."""
    if request.param == "demo":
        return serve(settings(), EchoRunner())
    chosen = settings(engine="direct")
    direct = DirectEngine(EchoModel(), chosen)
    direct.start()
    direct.wait_until_loaded()
    return serve(chosen, direct)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]


def test_a_chat_completion(client: openai.OpenAI, server: Server) -> None:
    answer = client.chat.completions.create(model="echo", messages=[USER], max_tokens=8, temperature=0, user="me", n=1)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "one two three")
    assert answer.id.startswith("chatcmpl-")
    if server.service.engine_name == "direct":
        assert choice.finish_reason == "stop"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)


def test_a_streamed_chat_completion(client: openai.OpenAI, server: Server) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="echo", messages=[USER], stream=True, stream_options=options))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "one two three"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    if server.service.engine_name == "direct":
        assert pieces == ["one", " two", " three"]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens == 6


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "one two"


CONVERSATIONS = {
    "a system message": [{"role": "system", "content": "Be brief."}, USER],
    "several turns": [USER, {"role": "assistant", "content": "four"}, USER],
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_is_answered_or_refused_but_never_cut(
    client: openai.OpenAI, server: Server, messages: list[Any]
) -> None:
    def create() -> Any:
        return client.chat.completions.create(model="echo", messages=messages)

    if server.service.engine_name == "direct":
        assert create().choices[0].message.content == "one two three"
        return
    with pytest.raises(openai.BadRequestError) as caught:
        create()
    assert (caught.value.code, caught.value.param) == ("bad_request", "messages")


def test_a_text_completion(client: openai.OpenAI, server: Server) -> None:
    if server.service.engine_name == "demo":
        with pytest.raises(openai.BadRequestError, match="raw text"):
            client.completions.create(model="echo", prompt="one two")
        return
    answer = client.completions.create(model="echo", prompt="one two", max_tokens=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one", "length")
    chunks = list(client.completions.create(model="echo", prompt="one two", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one two"


REFUSED: dict[str, dict[str, Any]] = {
    "two answers": {"n": 2},
    "a penalty": {"presence_penalty": 0.5},
    "stop words": {"stop": ["x"]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "probabilities": {"logprobs": True},
    "JSON only": {"response_format": {"type": "json_object"}},
    "too many tokens": {"max_tokens": 4096},
    "too hot": {"temperature": 3},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_and_named(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=[USER], **fields)
    assert caught.value.code == "bad_request"
    assert caught.value.param
    assert caught.value.param.split("[")[0] in fields


NO_MESSAGES: dict[str, list[Any]] = {
    "none": [],
    "the last is not the user's": [USER, {"role": "assistant", "content": "four"}],
    "a blank one": [{"role": "user", "content": "  "}],
    "a picture": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    "a tool's": [{"role": "tool", "content": "4", "tool_call_id": "1"}],
}


@pytest.mark.parametrize("messages", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_messages_that_are_none_are_refused(client: openai.OpenAI, messages: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=messages)
    assert caught.value.param
    assert caught.value.param.startswith("messages")


def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=[USER])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "'echo'" in str(caught.value)


def test_a_run_that_fails_is_told(client: openai.OpenAI, server: Server) -> None:
    broken = {"role": "user", "content": "break" if server.service.engine_name == "direct" else "fail"}
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="echo", messages=[broken])
    assert caught.value.code in ("internal_error", "demo_failed")
    with pytest.raises(openai.APIError, match=r"broke|failed"):
        list(client.chat.completions.create(model="echo", messages=[broken], stream=True))


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/completions"])
def test_every_error_below_v1_has_openais_shape(server: Server, path: str) -> None:
    error = requests.get(f"{server.url}{path}", timeout=10).json()["error"]
    assert {"message", "type", "param", "code", "next_step", "request_id"} <= set(error)


def test_the_real_model_answers_a_conversation(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    server = serve(settings(engine="direct", llama_dir=model_dir, slots=1))
    server.service.wait_until_loaded()  # type: ignore[attr-defined]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
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
    raw = requests.post(
        f"{server.url}/v1/chat/completions",
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
