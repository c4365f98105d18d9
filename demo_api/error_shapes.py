"""What an error tells, as types: mypy holds every exception to them, and the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict


class FurtherFacts(TypedDict, total=False):
    """What else an error may tell, beside the field."""

    phase: Annotated[str, Field(description="What the server is doing before it is ready.")]
    retry_after: Annotated[int, Field(description="Seconds; the header `Retry-After` has them too.")]
    run_id: Annotated[str, Field(description="The run that this is about.")]
    exit_code: Annotated[
        int | None, Field(description="The child's; negative is the signal that ended it; null where there was none.")
    ]
    time_seconds: Annotated[float, Field(description="What you waited for, the line included.")]
    available_endpoints: Annotated[list[str], Field(description="Every method and path.")]


class Facts(FurtherFacts, total=False):
    """What else an error may tell."""

    field: Annotated[str, Field(description="What of the request is wrong.")]


class Problem(Facts):
    """What went wrong, and what to do about it."""

    success: Literal[False]
    error: Annotated[str, Field(description="What is wrong, in one sentence.")]
    code: Annotated[str, Field(description="What is wrong, for programs; docs/errors.md has them all.")]
    next_step: Annotated[str, Field(description="What to do about it.")]


class ErrorBody(Problem):
    """What went wrong, and what to do about it."""

    request_id: Annotated[str, Field(description="The same as in the header `X-Request-Id`.")]
