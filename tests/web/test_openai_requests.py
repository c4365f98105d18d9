"""What OpenAI's clients may send, messages and parameters that change nothing, and what they are told of the rest."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import requests
from openai.types.chat import ChatCompletionMessage
from support.serving import Server

from demo_api.messages import Turn
from demo_api.web.openai.requests import ChatCompletions
from demo_api.web.parse import parse_body

USER = {"role": "user", "content": "one two three"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


def is_direct(server: Server) -> bool:
    return server.service.engine_name == "direct"


def refusal(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    """The error that a chat completion with these fields is answered with."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": "echo", "messages": [USER]} | fields))
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["code"], body["type"]) == ("bad_request", "invalid_request_error")
    return body


@pytest.mark.parametrize("as_it_is", [True, False], ids=["the message", "its fields"])
def test_an_answer_may_be_sent_back_as_history(
    client: openai.OpenAI, server_of_each_engine: Server, *, as_it_is: bool
) -> None:
    said = client.chat.completions.create(model="echo", messages=[USER]).choices[0].message
    messages: list[Any] = [USER, said if as_it_is else said.model_dump(), {"role": "user", "content": "four"}]
    if is_direct(server_of_each_engine):
        answer = client.chat.completions.create(model="echo", messages=messages)
        assert answer.choices[0].message.content == "four"
    else:
        assert "a single user message" in refusal(client, messages=messages)["message"]


MESSAGES: dict[str, dict[str, Any]] = {
    "a name": {**USER, "name": "Ann"},
    "all that a server may answer, null": {**ChatCompletionMessage(role="assistant", content="").model_dump(), **USER},
    "all that a server may answer, empty": {**USER, "refusal": "", "annotations": [], "tool_calls": []},
    "what other servers answer": {**USER, "reasoning_content": None, "reasoning": None},
    "what the client's parse() adds": {**USER, "parsed": None},
    "parts": {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two three"}]},
    "a part that is to be cached": {
        "role": "user",
        "content": [{"type": "text", "text": "one two three", "cache_control": {"type": "ephemeral"}}],
    },
    "a message that is to be cached": {**USER, "cache_control": {"type": "ephemeral"}},
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_what_changes_nothing_in_a_message_is_taken(direct: openai.OpenAI, message: Any) -> None:
    answer = direct.chat.completions.create(model="echo", messages=[message])
    assert answer.choices[0].message.content == "one two three"


NO_MESSAGES: dict[str, tuple[list[Any], str, str]] = {
    "none": ([], "messages", "at least 1 item"),
    "the last is not the user's": ([USER, {"role": "assistant", "content": "four"}], "messages", "the user's"),
    "a blank one": ([{"role": "user", "content": "  "}], "messages", "not blank"),
    "no text": ([{"role": "user"}], "messages[0].content", "is missing"),
    "null": ([{"role": "user", "content": None}], "messages[0].content", "is null, and the message says nothing else"),
    "a number": ([{"role": "user", "content": 4}], "messages[0].content", "valid string"),
    "a picture": (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}],
        "messages[0].content[1]",
        "is of type image_url; this model reads text only",
    ),
    "a part without text": (
        [{"role": "user", "content": [{"type": "text"}]}],
        "messages[0].content[0].text",
        "missing",
    ),
    "a part of no type": ([{"role": "user", "content": [{"text": "a"}]}], "messages[0].content[0].type", "missing"),
    "a part that is none": ([{"role": "user", "content": ["a"]}], "messages[0].content[0]", "wrong"),
    "an unknown field of a part": (
        [{"role": "user", "content": [{"type": "text", "text": "a", "size": 4}]}],
        "messages[0].content[0].size",
        "is not known",
    ),
    "an unknown field": ([USER, {**USER, "colour": "red"}], "messages[1].colour", "is not known"),
    "a call": (
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, USER],
        "messages[1].tool_calls",
        "this model calls no tools",
    ),
    "a refusal": (
        [USER, {"role": "assistant", "content": None, "refusal": "I won't."}, USER],
        "messages[1].refusal",
        "this model reads the content of a message only",
    ),
    "a tool's": ([{"role": "tool", "content": "4"}], "messages[0].role", "'system', 'developer', 'user'"),
}


@pytest.mark.parametrize(("messages", "param", "sentence"), NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_messages_that_cannot_be_read_are_refused_and_named(
    direct: openai.OpenAI, messages: list[Any], param: str, sentence: str
) -> None:
    error = refusal(direct, messages=messages)
    assert error["param"] == param
    assert sentence in error["message"]
    assert f"'{param}'" in error["message"]
    assert "max_tokens" not in error["next_step"], "the fields of the body are not those of a message"


def test_a_developer_is_taken_where_a_system_message_is(client: openai.OpenAI, server_of_each_engine: Server) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, USER]
    if is_direct(server_of_each_engine):
        assert client.chat.completions.create(model="echo", messages=messages).choices[0].message.content
    else:
        assert "no system message" in refusal(client, messages=messages)["message"]


def test_a_developer_is_who_was_called_the_system() -> None:
    body = {"model": "echo", "messages": [{"role": "developer", "content": "Be brief."}, USER]}
    turns = parse_body(ChatCompletions, json.dumps(body)).question().turns
    assert turns == [Turn("system", "Be brief."), Turn("user", "one two three")]


HARMLESS: dict[str, dict[str, Any]] = {
    "no stop sequence": {"stop": []},
    "one answer": {"n": 1},
    "no penalty": {"presence_penalty": 0, "frequency_penalty": 0.0},
    "no bias": {"logit_bias": {}},
    "no probabilities": {"logprobs": False, "top_logprobs": 0},
    "no tools": {"tools": [], "tool_choice": "none", "functions": [], "function_call": "none"},
    "tools at will": {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    "text": {"response_format": {"type": "text"}, "modalities": ["text"]},
    "who asks": {"user": "me", "safety_identifier": "me", "metadata": {"chat": "1"}},
    "what may be cached": {"prompt_cache_key": "a", "prompt_cache_retention": "24h"},
    "the usual service": {"service_tier": "auto"},
    "nothing to reason": {"reasoning_effort": "none"},
    "as much as usual": {"verbosity": "medium"},
    "nothing to store": {"store": False},
    "a prediction": {"prediction": {"type": "content", "content": "one"}},
}
NULLS = [
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "metadata", "modalities", "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format",
    "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
]  # fmt: skip


@pytest.mark.parametrize("fields", [*HARMLESS.values(), *({name: None} for name in NULLS)], ids=[*HARMLESS, *NULLS])
def test_a_parameter_that_changes_nothing_is_taken(direct: openai.OpenAI, fields: dict[str, Any]) -> None:
    answer = direct.chat.completions.create(model="echo", messages=[USER], **fields)
    assert answer.choices[0].message.content == "one two three"


def test_a_stream_may_be_asked_not_to_be_padded(direct: openai.OpenAI) -> None:
    options: Any = {"include_obfuscation": False}
    chunks = list(direct.chat.completions.create(model="echo", messages=[USER], stream=True, stream_options=options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "two answers": ({"n": 2}, "a request gets one answer"),
    "true as a number of answers": ({"n": True}, "a request gets one answer"),
    "a penalty": ({"presence_penalty": 0.5}, "no penalty"),
    "a bias": ({"logit_bias": {"50256": -100}}, "no token is made more or less likely"),
    "probabilities": ({"logprobs": True}, "no probabilities"),
    "more probabilities": ({"top_logprobs": 2}, "no probabilities"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "calls no tools"),
    "a tool that must be called": ({"tool_choice": "required"}, "calls no tools"),
    "functions": ({"functions": [{"name": "f"}]}, "calls no tools"),
    "the web": ({"web_search_options": {}}, "search the web"),
    "JSON only": ({"response_format": {"type": "json_object"}}, "form of an answer"),
    "speech": ({"modalities": ["text", "audio"]}, "text only"),
    "a voice": ({"audio": {"voice": "alloy", "format": "wav"}}, "text only"),
    "reasoning": ({"reasoning_effort": "high"}, "does not reason"),
    "few words": ({"verbosity": "low"}, "how much to say"),
    "to be served first": ({"service_tier": "priority"}, "alike"),
    "to be stored": ({"store": True}, "no answer is stored"),
}


@pytest.mark.parametrize(("fields", "sentence"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_parameter_that_would_change_the_answer_is_refused_with_a_sentence(
    direct: openai.OpenAI, fields: dict[str, Any], sentence: str
) -> None:
    (name,) = fields
    error = refusal(direct, **fields)
    assert error["param"] == name
    assert error["message"].startswith(f"The field '{name}' cannot be used: ")
    assert sentence in error["message"]
    assert error["next_step"].startswith("Leave it out")


WRONG: dict[str, dict[str, Any]] = {
    "too many tokens": {"max_tokens": 4096},
    "too many tokens by the new name": {"max_completion_tokens": 4096},
    "too hot": {"temperature": 3},
    "a number as a stop sequence": {"stop": 5},
    "an empty stop sequence": {"stop": ""},
    "five stop sequences": {"stop": ["a", "b", "c", "d", "e"]},
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG)
def test_a_value_that_is_wrong_is_named(direct: openai.OpenAI, fields: dict[str, Any]) -> None:
    assert refusal(direct, **fields)["param"] in fields


TEXT_HARMLESS: dict[str, Any] = {
    "best_of": 1, "echo": False, "n": 1, "logprobs": None, "suffix": "", "logit_bias": {}, "stop": None, "user": "me",
}  # fmt: skip
TEXT_UNUSABLE: dict[str, Any] = {"best_of": 2, "echo": True, "n": 2, "logprobs": 1, "suffix": "."}


def test_the_same_holds_for_raw_text(server_of_each_engine: Server) -> None:
    asked = {"model": "echo", "prompt": "one two"}

    def send(**fields: object) -> requests.Response:
        return requests.post(f"{server_of_each_engine.url}/v1/completions", json=asked | fields, timeout=60)

    for name, value in TEXT_UNUSABLE.items():
        error = send(**{name: value}).json()["error"]
        assert (error["param"], error["message"].split(":")[0]) == (name, f"The field '{name}' cannot be used"), name
    taken = send(**TEXT_HARMLESS)
    if is_direct(server_of_each_engine):
        assert taken.json()["choices"][0]["text"] == "one two"
    else:
        assert (taken.status_code, taken.json()["error"]["param"]) == (400, "prompt"), "the body has no messages"


def test_a_field_that_is_not_known_is_answered_with_those_that_are(server_of_each_engine: Server) -> None:
    body = json.dumps({"model": "echo", "messages": [USER], "max_token": 5})
    headers = {"Content-Type": "application/json"}
    url = f"{server_of_each_engine.url}/v1/chat/completions"
    error = requests.post(url, data=body, headers=headers, timeout=60).json()["error"]
    assert error["param"] == "max_token"
    assert "max_tokens" in error["next_step"]
