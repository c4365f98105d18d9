"""What OpenAI's routes answer, as types: mypy holds the code to them, and the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from demo_api.error_shapes import FurtherFacts

Finish = Annotated[str | None, Field(description="`stop` or `length`; null until the end.")]


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="Unix seconds.")]
    owned_by: str


class Models(TypedDict):
    """The one model, or none where its name is not known yet."""

    object: Literal["list"]
    data: list[Model]


class Usage(TypedDict):
    """Tokens, counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Head(TypedDict):
    """What every answer and chunk begins with."""

    id: Annotated[str, Field(description="The run's id, with OpenAI's prefix.")]
    created: Annotated[int, Field(description="Unix seconds.")]
    model: str


class Message(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """An answer; there is always one."""

    index: int
    message: Message
    logprobs: None
    finish_reason: Finish


class ChatCompletion(Head):
    """The answer to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Annotated[Usage | None, Field(description="Null on the demo engine, which does not tell.")]


class Delta(TypedDict):
    """What a chunk adds."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChatChunkChoice(TypedDict):
    """A part of an answer."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: Finish


class ChatChunk(Head):
    """A part of the answer to a conversation."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]


class ChatUsageChunk(ChatChunk):
    """The last part, where `stream_options` asked for it: no choice, but the count."""

    usage: Usage | None


class TextChoice(TypedDict):
    """A continuation, or a part of it."""

    index: int
    text: str
    logprobs: None
    finish_reason: Finish


class TextChunk(Head):
    """A part of a continuation."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class TextCompletion(TextChunk):
    """The continuation of a text; as the last part of a stream, where `stream_options` asked for it, the count."""

    usage: Usage | None


class OpenAIErrorDetail(FurtherFacts):
    """What went wrong, and what to do about it."""

    message: Annotated[str, Field(description="What is wrong, in one sentence.")]
    type: Literal["invalid_request_error", "server_error"]
    param: Annotated[str | None, Field(description="What of the request is wrong.")]
    code: Annotated[str, Field(description="What is wrong, for programs; docs/errors.md has them all.")]
    next_step: Annotated[str, Field(description="What to do about it.")]
    request_id: Annotated[str, Field(description="The same as in the header `X-Request-Id`.")]


class OpenAIError(TypedDict):
    """One of our errors in OpenAI's shape."""

    error: OpenAIErrorDetail


class BrokenOff(TypedDict):
    """The last chunk of a run that has failed: its error in OpenAI's shape, and what else is known of the run."""

    error: Annotated[dict[str, object], Field(json_schema_extra={"required": ["message", "type", "code", "next_step"]})]
