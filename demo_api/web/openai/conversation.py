"""The messages of a conversation, as OpenAI's clients send them.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag, model_validator

from demo_api.messages import Turn
from demo_api.web.openai.parameters import NO_TOOLS, Nothing, Strict, because
from demo_api.web.parse import refused

_ROLES = {"developer": "system"}
"""What OpenAI calls differently since 2024."""

_Hint = dict[str, Any] | None
"""For servers that cache a prompt's beginning; it changes no answer."""

_CONTENT_ONLY = because("this model reads the content of a message only")


class MessagePart(Strict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str
    cache_control: _Hint = None
    prompt_cache_breakpoint: _Hint = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, part: object) -> object:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise refused(f"is of type {kind[:100]}; this model reads text only", "Send the text alone.")
        return part


def _kind(content: object) -> str:
    return "parts" if isinstance(content, list) else "text"


def _is_there(content: object) -> object:
    if content is None:
        raise refused("is null, and the message says nothing else", "Send its text, or leave the message out.")
    return content


class AskedMessage(Strict):
    """One message of a conversation: a client's own, or an answer that is sent back."""

    role: Literal["system", "developer", "user", "assistant"]
    name: str | None = None
    cache_control: _Hint = None
    # What servers answer beside the text, where there is nothing in it.
    refusal: Annotated[Literal[""] | None, _CONTENT_ONLY] = None
    annotations: Annotated[Nothing | None, _CONTENT_ONLY] = None
    audio: Annotated[None, _CONTENT_ONLY] = None
    parsed: Annotated[None, _CONTENT_ONLY] = None
    reasoning: Annotated[Literal[""] | None, _CONTENT_ONLY] = None
    reasoning_content: Annotated[Literal[""] | None, _CONTENT_ONLY] = None
    function_call: Annotated[None, NO_TOOLS] = None
    tool_calls: Annotated[Nothing | None, NO_TOOLS] = None
    # The last one, so that what a message has instead of a text is named before the text that it lacks.
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[MessagePart], Tag("parts")],
        Discriminator(_kind),
        BeforeValidator(_is_there),
    ]

    def turn(self) -> Turn:
        """The same, as the engines have it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(_ROLES.get(self.role, self.role), text)
