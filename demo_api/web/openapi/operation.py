"""The decorator that describes a route of the API where the route is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from demo_api.web.openapi.refusals import Refusal
from demo_api.web.openapi.schemas import JsonObject

JSON, STREAM, TEXT = "application/json", "text/event-stream", "text/plain"

_View = TypeVar("_View", bound=Callable[..., object])


@dataclass(frozen=True)
class Content:
    """The body of a request or of an answer.

    Attributes:
        kind: its type; of a stream, the types of its events' data: by the kind of event, or as a list where events have
            no kind.
        example: as JSON or text, made by the code that makes real ones where that can be; None shows none.
    """

    kind: object
    example: object = None


@dataclass(frozen=True)
class Operation:
    """Describes a view function, below its ``@app.get`` or ``@app.post``; its name becomes the operation id.

    The headers, a key, and the refusals that any route may answer are added without being named.

    Attributes:
        tag: ``chat``, ``runs``, ``openai`` or ``server``; the routes of ``openai`` answer errors in OpenAI's shape.
        summary: a few words, as a title.
        description: sentences, in which backticks mark code.
        answers: media type -> the answer.
        parameters: as OpenAPI has them.
        refusals: the errors that may be answered instead.
        status: of the answer; 202 comes with the header ``Location`` and the links.
        links: operation ids of what can be asked next about the run in the answer.
    """

    tag: str
    summary: str
    description: str
    answers: Mapping[str, Content]
    body: Content | None = None
    parameters: Sequence[JsonObject] = ()
    refusals: Sequence[Refusal] = ()
    status: int = 200
    links: Sequence[str] = ()

    def __call__(self, view: _View) -> _View:
        """Attaches the description to the view function, which stays as it is."""
        view.operation = self  # type: ignore[attr-defined]
        return view
