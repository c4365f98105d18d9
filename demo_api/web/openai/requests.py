"""The requests of OpenAI's API, as far as the engines can do what they ask for.

Source: https://platform.openai.com/docs/api-reference (chat completions, completions). What an engine cannot do is
refused, never ignored; ``parameters`` has what is taken because it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from pydantic import BaseModel, Discriminator, Field, Tag

from demo_api.errors import BadRequest
from demo_api.messages import MAX_PROMPT_CHARACTERS, MaxTokens, Prompt, Question, Request, Seed
from demo_api.web.openai.conversation import AskedMessage
from demo_api.web.openai.parameters import OfChats, OfTexts, Strict
from demo_api.web.parse import check_request


class StreamOptions(Strict):
    """How a stream ends, and whether it is padded: this one never is."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


_StopSequence = Annotated[str, Field(min_length=1, max_length=1000)]
_StopSequences = Annotated[list[_StopSequence], Field(max_length=4)]


def _kind(stop: object) -> str:
    return "several" if isinstance(stop, list) else "one"


class _Sampling(BaseModel):
    model: str
    max_tokens: MaxTokens | None = None
    temperature: float | None = Field(None, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0.0, le=1.0, allow_inf_nan=False)
    seed: Seed | None = None
    stop: Annotated[
        Annotated[_StopSequence | None, Tag("one")] | Annotated[_StopSequences, Tag("several")],
        Discriminator(_kind),
        Field(description="Ends the answer before the first of them; on the direct engine only."),
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def _request(self, prompt: str, max_tokens: int | None) -> Request:
        given = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }
        return check_request({"prompt": prompt, **{name: value for name, value in given.items() if value is not None}})

    def _stop(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatCompletions(_Sampling, OfChats):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[AskedMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: MaxTokens | None = None

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
        request = self._request(last.content, self.max_completion_tokens or self.max_tokens)
        return Question(request, turns, self._stop())

    @property
    def names(self) -> Mapping[str, str]:
        """What this body calls the fields that the engines name otherwise."""
        most = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return {"prompt": "messages", "max_tokens": most}


class TextCompletions(_Sampling, OfTexts):
    """The body of ``POST /v1/completions``: text that is continued as it is."""

    prompt: Prompt

    def question(self) -> Question:
        """What the model is to continue."""
        return Question(self._request(self.prompt, self.max_tokens), [], self._stop())

    @property
    def names(self) -> Mapping[str, str]:
        """What this body calls the fields that the engines name otherwise."""
        return {"messages": "prompt"}


Completions = ChatCompletions | TextCompletions


@contextmanager
def named_as_asked(asked: Completions) -> Iterator[None]:
    """Has an engine's refusal name the field that the client's body has."""
    try:
        yield
    except BadRequest as error:
        field = error.fields.get("field")
        if field is not None:
            error.fields["field"] = asked.names.get(field, field)
        raise
