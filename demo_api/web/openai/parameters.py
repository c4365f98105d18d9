"""The parameters of OpenAI's API that change nothing here: at which values they are taken, and why at no others.

Source: https://platform.openai.com/docs/api-reference (chat completions, completions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from demo_api.web.parse import refused


class Strict(BaseModel):
    """Takes no field that it does not name, and no value of another type."""

    model_config = ConfigDict(strict=True, extra="forbid")


def because(reason: str, next_step: str = "Leave it out.") -> WrapValidator:
    """Refuses all other values than those of a parameter's type, with the reason."""

    def check(value: object, take: Callable[[object], object]) -> object:
        try:
            taken = take(value)
        except ValidationError:
            raise refused(f"cannot be used: {reason}", next_step) from None
        if isinstance(value, bool) != isinstance(taken, bool):  # a Literal alone takes true for 1
            raise refused(f"cannot be used: {reason}", next_step)
        return taken

    return WrapValidator(check)


Nothing = Annotated[list[Any], Field(max_length=0)]
"""An empty list."""

_TEXT_ONLY = because("this model makes text only")
NO_TOOLS = because("this model calls no tools")
_ONE_ANSWER = because("a request gets one answer", "Leave it out, and send the request once for each answer.")
_NO_PENALTY = because("no penalty is applied here")
_NO_BIAS = because("no token is made more or less likely here", "Leave it out, or send {}.")
_NO_PROBABILITIES = because("no probabilities are told here")
_NOT_STORED = because("no answer is stored here")


class ResponseFormat(Strict):
    """Text is the only one."""

    type: Literal["text"]


class _OfBoth(Strict):
    user: str | None = None
    n: Annotated[Literal[1] | None, _ONE_ANSWER] = None
    presence_penalty: Annotated[Literal[0] | None, _NO_PENALTY] = None
    frequency_penalty: Annotated[Literal[0] | None, _NO_PENALTY] = None
    logit_bias: Annotated[Annotated[dict[str, Any], Field(max_length=0)] | None, _NO_BIAS] = None


class OfTexts(_OfBoth):
    """Those of completions."""

    best_of: Annotated[Literal[1] | None, _ONE_ANSWER] = None
    echo: Annotated[Literal[False] | None, because("the answer never has the prompt in it")] = None
    logprobs: Annotated[None, _NO_PROBABILITIES] = None
    suffix: Annotated[Literal[""] | None, because("a text is continued at its end only")] = None


class OfChats(_OfBoth):
    """Those of chat completions."""

    # Who asks, for what, how it is paid for and where it is cached: at any value.
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    prediction: Annotated[dict[str, Any] | None, Field(description="Would make the same answer come sooner.")] = None
    parallel_tool_calls: bool | None = None

    tools: Annotated[Nothing | None, NO_TOOLS] = None
    tool_choice: Annotated[Literal["none", "auto"] | None, NO_TOOLS] = None
    functions: Annotated[Nothing | None, NO_TOOLS] = None
    function_call: Annotated[Literal["none", "auto"] | None, NO_TOOLS] = None
    web_search_options: Annotated[None, because("this model does not search the web")] = None
    logprobs: Annotated[Literal[False] | None, _NO_PROBABILITIES] = None
    top_logprobs: Annotated[Literal[0] | None, _NO_PROBABILITIES] = None
    modalities: Annotated[Annotated[list[Literal["text"]], Field(max_length=1)] | None, _TEXT_ONLY] = None
    audio: Annotated[None, _TEXT_ONLY] = None
    response_format: Annotated[ResponseFormat | None, because("the form of an answer cannot be set here")] = None
    reasoning_effort: Annotated[Literal["none"] | None, because("this model does not reason before it answers")] = None
    verbosity: Annotated[Literal["medium"] | None, because("the model cannot be told how much to say")] = None
    moderation: Annotated[None, because("nothing is moderated here")] = None
    service_tier: Annotated[Literal["auto", "default"] | None, because("all requests are served alike")] = None
    store: Annotated[Literal[False] | None, _NOT_STORED] = None
