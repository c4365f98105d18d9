"""The shapes of OpenAI's API, as far as the engines can do what they ask for.

Source: https://platform.openai.com/docs/api-reference (chat completions, completions, models). What an engine cannot do
is refused, never ignored; parameters that change nothing at the value that they have are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from demo_api.direct.model import Question, Turn
from demo_api.errors import BadRequest, ModelNotFound
from demo_api.messages import (
    MAX_PROMPT_CHARACTERS,
    Event,
    MaxTokens,
    Prompt,
    Request,
    Run,
    Seed,
    check_request,
    parse_body,
)
from demo_api.web.openai_types import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    Delta,
    Head,
    Message,
    Model,
    Models,
    TextChoice,
    TextChunk,
    TextCompletion,
    Usage,
)


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _truth(value: object) -> object:
    if value is not None and not isinstance(value, bool):
        raise ValueError("should be true or false")
    return value


# A Literal alone would take true for 1.
_One = Annotated[Literal[1], BeforeValidator(_number)]
_Zero = Annotated[Literal[0], BeforeValidator(_number)]
_False = Annotated[Literal[False], BeforeValidator(_truth)]


class MessagePart(BaseModel):
    """A part of a message: text."""

    model_config = ConfigDict(strict=True, extra="forbid")

    type: Literal["text"]
    text: str


class AskedMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str | list[MessagePart]

    def turn(self) -> Turn:
        """The same, as the engines have it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(self.role, text)


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """Text is the only one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    type: Literal["text"]


class _Completions(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    max_tokens: MaxTokens | None = None
    temperature: float | None = Field(None, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0.0, le=1.0, allow_inf_nan=False)
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # What changes nothing at these values.
    user: str | None = None
    n: _One | None = None
    presence_penalty: _Zero | None = None
    frequency_penalty: _Zero | None = None
    stop: None = None
    logit_bias: None = None

    def _request(self, prompt: str, max_tokens: int | None) -> Request:
        given = {"max_tokens": max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return check_request({"prompt": prompt, **{name: value for name, value in given.items() if value is not None}})


class ChatCompletions(_Completions):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[AskedMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: MaxTokens | None = None
    logprobs: _False | None = None
    response_format: ResponseFormat | None = None
    store: _False | None = None

    def question(self) -> Question:
        """What the model is to answer.

        Raises:
            BadRequest: the last message is not the user's, or is blank or too long.
        """
        turns = [message.turn() for message in self.messages]
        last = turns[-1]
        if last.role != "user" or not last.content.strip() or sum(map(_length, turns)) > MAX_PROMPT_CHARACTERS:
            raise BadRequest(
                "The field 'messages' is wrong: the last one is the user's and not blank, and all of them have at most "
                f"{MAX_PROMPT_CHARACTERS} characters.",
                field="messages",
            )
        return Question(self._request(last.content, self.max_completion_tokens or self.max_tokens), turns)


class TextCompletions(_Completions):
    """The body of ``POST /v1/completions``: text that is continued as it is."""

    prompt: Prompt
    logprobs: None = None
    echo: _False | None = None
    best_of: _One | None = None
    suffix: None = None

    def question(self) -> Question:
        """What the model is to continue."""
        return Question(self._request(self.prompt, self.max_tokens), [])


Completions = ChatCompletions | TextCompletions


def parse_chat(body: bytes) -> ChatCompletions:
    """Reads the body of a chat completion. Raises BadRequest as ``parse_request`` does."""
    return parse_body(ChatCompletions, body)


def parse_text(body: bytes) -> TextCompletions:
    """Reads the body of a text completion. Raises BadRequest as ``parse_request`` does."""
    return parse_body(TextCompletions, body)


def check_model(asked: Completions, model: object) -> None:
    """Raises ModelNotFound unless it is the one that is served."""
    if asked.model != model:
        sentence = f"There is no model {asked.model[:200]!r} here, but {model!r}."
        raise ModelNotFound(sentence, next_step=f"Ask for {model!r}.", field="model")


def models(model: str | None, created: float) -> Models:
    """The body of ``GET /v1/models``."""
    if not model:
        return {"object": "list", "data": []}
    one: Model = {"id": model, "object": "model", "created": int(created), "owned_by": "demo_api"}
    return {"object": "list", "data": [one]}


def error(body: Mapping[str, object], status: int) -> dict[str, object]:
    """One of our errors in OpenAI's shape; nothing of it is lost."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    shaped = {"message": body["error"], "type": kind, "param": body.get("field"), "code": body["code"]}
    rest = {name: value for name, value in body.items() if name not in ("success", "error", "code", "field")}
    return {"error": {**shaped, **rest}}


def completion(asked: Completions, run: Run) -> ChatCompletion | TextCompletion:
    """The whole answer, for a run that has succeeded."""
    result = run.result
    assert result is not None
    assert result.answer is not None
    text = result.answer.response
    head = _head(asked, run.run_id, run.accepted_at)
    usage = _usage(result.answer.prompt_tokens, result.answer.tokens_generated)
    if isinstance(asked, ChatCompletions):
        message: Message = {"role": "assistant", "content": text, "refusal": None}
        said: ChatChoice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
        return {**head, "object": "chat.completion", "choices": [said], "usage": usage}
    choice: TextChoice = {"index": 0, "text": text, "logprobs": None, "finish_reason": result.finish_reason}
    return {**head, "object": "text_completion", "choices": [choice], "usage": usage}


class Chunks:
    """The answer as server-sent chunks, as it comes. A run that fails ends them with an error.

    The demo's text so far is a best effort and may differ from its answer, so of the demo the answer comes at once.
    """

    def __init__(self, asked: Completions, run_id: str, created: float) -> None:
        self._asked = asked
        self._chat = isinstance(asked, ChatCompletions)
        self._head = _head(asked, run_id, created)
        self._told = False

    def opening(self) -> bytes:
        """What comes before everything else."""
        return _encode(self._chunk("", role="assistant")) if self._chat else b""

    def encode(self, number: int, event: Event) -> bytes:
        """The chunks for one event of the run, perhaps none."""
        if event.kind == "text" and not event.data.get("best_effort"):
            self._told = True
            return _encode(self._chunk(str(event.data["added"])))
        return b"".join(self._last(event.data)) if event.kind == "done" else b""

    def _last(self, done: Mapping[str, Any]) -> Iterator[bytes]:
        if not done["success"]:
            yield _encode(error(done, 500))
            return
        if done["response"] and not self._told:
            yield _encode(self._chunk(done["response"]))
        yield _encode(self._chunk(None, finish_reason=done["finish_reason"]))
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            usage = _usage(done["prompt_tokens"], done["tokens_generated"])
            yield _encode({**self._chunk(None), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _chunk(
        self, content: str | None, *, role: Literal["assistant"] | None = None, finish_reason: str | None = None
    ) -> ChatChunk | TextChunk:
        if not self._chat:
            text: TextChoice = {"index": 0, "text": content or "", "logprobs": None, "finish_reason": finish_reason}
            part: TextChunk = {**self._head, "object": "text_completion", "choices": [text]}
            return part
        delta: Delta = {} if role is None else {"role": role}
        if content is not None:
            delta["content"] = content
        choice: ChatChunkChoice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk: ChatChunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk


def _head(asked: Completions, run_id: str, created: float) -> Head:
    prefix = "chatcmpl-" if isinstance(asked, ChatCompletions) else "cmpl-"
    return {"id": prefix + run_id, "created": int(created), "model": asked.model}


def _usage(prompt_tokens: int | None, completion_tokens: int | None) -> Usage | None:
    if prompt_tokens is None or completion_tokens is None:
        return None
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def _encode(body: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


def _length(turn: Turn) -> int:
    return len(turn.content)
