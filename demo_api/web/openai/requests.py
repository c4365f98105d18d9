"""The requests of OpenAI's API, as far as the engines can do what they ask for.

Source: https://platform.openai.com/docs/api-reference (chat completions, completions). What an engine cannot do is
refused, never ignored; parameters that change nothing at the value that they have are accepted.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from demo_api.errors import BadRequest, ModelNotFound
from demo_api.messages import MAX_PROMPT_CHARACTERS, MaxTokens, Prompt, Question, Request, Seed, Turn
from demo_api.web.parse import check_request


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _truth(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError("should be true or false")
    return value


# A Literal alone would take true for 1.
_One = Annotated[Literal[1], BeforeValidator(_number)]
_Zero = Annotated[Literal[0], BeforeValidator(_number)]
_False = Annotated[Literal[False], BeforeValidator(_truth)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class MessagePart(_Strict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


class AskedMessage(_Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | list[MessagePart]

    def turn(self) -> Turn:
        """The same, as the engines have it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(self.role, text)


class StreamOptions(_Strict):
    """How a stream ends."""

    include_usage: bool = False


class ResponseFormat(_Strict):
    """Text is the only one."""

    type: Literal["text"]


class _Completions(_Strict):
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
        last, length = turns[-1], sum(len(turn.content) for turn in turns)
        if last.role != "user" or not last.content.strip() or length > MAX_PROMPT_CHARACTERS:
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


def check_model(asked: Completions, model: object) -> None:
    """Raises ModelNotFound unless it is the one that is served."""
    if asked.model != model:
        sentence = f"There is no model {asked.model[:200]!r} here, but {model!r}."
        raise ModelNotFound(sentence, next_step=f"Ask for {model!r}.", field="model")
