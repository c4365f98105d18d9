"""The answers of OpenAI's API: their types, from which the OpenAPI document is generated, and what makes them.

Source: https://platform.openai.com/docs/api-reference (chat completions, completions, models).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from demo_api.bodies import answered
from demo_api.errors import FurtherFacts
from demo_api.messages import Answer, Event, Run
from demo_api.web.event_stream import done
from demo_api.web.openai.requests import ChatCompletions, Completions

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
    usage: Annotated[Usage | None, Field(description="Null where a count is not known.")]


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
    param: Annotated[str | None, Field(description="The part of the request that is wrong.")]
    code: Annotated[str, Field(description="What is wrong, for programs; docs/errors.md has them all.")]
    next_step: Annotated[str, Field(description="What to do about it.")]
    request_id: Annotated[str, Field(description="As in the header `X-Request-Id`.")]


class OpenAIError(TypedDict):
    """One of our errors in OpenAI's shape."""

    error: OpenAIErrorDetail


class BrokenOff(TypedDict):
    """The last chunk of a run that has failed: its error in OpenAI's shape, and what else is known of the run."""

    error: Annotated[dict[str, object], Field(json_schema_extra={"required": ["message", "type", "code", "next_step"]})]


def model(name: str, created: float) -> Model:
    """The body of ``GET /v1/models/<model>``."""
    return {"id": name, "object": "model", "created": int(created), "owned_by": "demo_api"}


def models(names: Sequence[str], created: float) -> Models:
    """The body of ``GET /v1/models``."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def openai_error(body: Mapping[str, object], status: int) -> dict[str, object]:
    """One of our errors in OpenAI's shape; nothing of it is lost."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    shaped = {"message": body["error"], "type": kind, "param": body.get("field"), "code": body["code"]}
    rest = {name: value for name, value in body.items() if name not in ("success", "error", "code", "field")}
    return {"error": {**shaped, **rest}}


def completion(asked: Completions, run: Run, *, seconds: float) -> ChatCompletion | TextCompletion:
    """The whole answer, for a run that has ended.

    Args:
        seconds: what the client waited for.

    Raises:
        RunFailed: the run did not succeed.
    """
    result, answer = answered(run, seconds=seconds)
    head, usage = _head(asked, run.run_id, run.accepted_at), _usage(answer)
    if isinstance(asked, ChatCompletions):
        message: Message = {"role": "assistant", "content": answer.response, "refusal": None}
        said: ChatChoice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
        return {**head, "object": "chat.completion", "choices": [said], "usage": usage}
    return {
        **head,
        "object": "text_completion",
        "choices": [_text(answer.response, result.finish_reason)],
        "usage": usage,
    }


class Chunks:
    """The answer as server-sent chunks, as it comes. A run that fails ends them with an error.

    The demo's text so far is a best effort and may differ from its answer, so of the demo the answer comes at once.

    Args:
        run: returns the run as it is now; called for its last event.
    """

    def __init__(self, asked: Completions, run_id: str, created: float, run: Callable[[], Run]) -> None:
        self._asked = asked
        self._head = _head(asked, run_id, created)
        self._run = run
        self._has_text = False

    def opening(self) -> bytes:
        """Of a conversation: who speaks."""
        return _encode(self._chunk("", role="assistant")) if isinstance(self._asked, ChatCompletions) else b""

    def encode(self, number: int, event: Event) -> bytes:
        """The chunks for one event of the run, perhaps none."""
        if event.kind == "text" and not event.data.get("best_effort"):
            self._has_text = True
            return _encode(self._chunk(str(event.data["added"])))
        return b"".join(self._last(self._run())) if event.kind == "done" else b""

    def _last(self, run: Run) -> Iterator[bytes]:
        if run.result is None or run.result.answer is None:
            yield _encode(openai_error(done(run), 500))
            return
        answer = run.result.answer
        if answer.response and not self._has_text:
            yield _encode(self._chunk(answer.response))
        yield _encode(self._chunk(None, finish_reason=run.result.finish_reason))
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            yield _encode({**self._chunk(None), "choices": [], "usage": _usage(answer)})
        yield b"data: [DONE]\n\n"

    def _chunk(
        self, content: str | None, *, role: Literal["assistant"] | None = None, finish_reason: str | None = None
    ) -> ChatChunk | TextChunk:
        if not isinstance(self._asked, ChatCompletions):
            return {**self._head, "object": "text_completion", "choices": [_text(content or "", finish_reason)]}
        delta: Delta = {} if role is None else {"role": role}
        if content is not None:
            delta["content"] = content
        choice: ChatChunkChoice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def _head(asked: Completions, run_id: str, created: float) -> Head:
    prefix = "chatcmpl-" if isinstance(asked, ChatCompletions) else "cmpl-"
    return {"id": prefix + run_id, "created": int(created), "model": asked.model}


def _text(text: str, finish_reason: str | None) -> TextChoice:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _usage(answer: Answer) -> Usage | None:
    prompt, made = answer.prompt_tokens, answer.tokens_generated
    if prompt is None or made is None:
        return None
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _encode(body: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()
