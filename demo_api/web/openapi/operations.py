"""What is to be known of each route beside its types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo_api.bodies import Accepted, BriefHealth, ChatAnswer, Health, RunPage, RunRecord, Status
from demo_api.errors import (
    BadRequest,
    IdempotencyConflict,
    MetricsUnavailable,
    ModelNotFound,
    NoLog,
    NoSuchRun,
    RunEnded,
    SetupError,
)
from demo_api.messages import STATUSES, Request, Requests
from demo_api.web.event_stream import EVENTS
from demo_api.web.openai.answers import (
    BrokenOff,
    ChatChunk,
    ChatCompletion,
    ChatUsageChunk,
    Models,
    TextChunk,
    TextCompletion,
)
from demo_api.web.openai.requests import ChatCompletions, TextCompletions
from demo_api.web.openapi import refusals
from demo_api.web.openapi.refusals import ACCEPTED, ANSWERED, BODY, LEDGER, READY, WAITING, Refusal

PAGES = ("GET /", "GET /docs")
"""Routes for people, which the document leaves out."""

JSON, STREAM, TEXT = "application/json", "text/event-stream", "text/plain"


@dataclass(frozen=True)
class Parameter:
    """One parameter of the path, the query or the header."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]
    example: object = None


@dataclass(frozen=True)
class Operation:
    """One route.

    Attributes:
        answers: media type -> the type of the answer; of a stream, its kinds of events and their types, or the types of
            what any event may hold.
        refusals: the errors that may be answered.
        links: what can be asked next about the run that is answered, by operation ids.
        openai: whether it is one of OpenAI's routes, which have their own shape of errors.
        public: whether it needs no key.
    """

    operation_id: str
    tag: str
    summary: str
    description: str
    answers: Mapping[str, object]
    body: object | None = None
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    status: int = 200
    links: tuple[str, ...] = ()
    openai: bool = False
    public: bool = False


RUN_ID = Parameter("run_id", "path", "The run's id.", {"type": "string"})
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Sent again with the same request, it gives the first run again: so one whose answer was lost can be repeated.",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    "7f3d0c52",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "The number of the last event that the client has; browsers send it by themselves.",
    {"type": "string", "pattern": "^[0-9]{1,9}$"},
)
AFTER = Parameter("after", "query", "The same, for clients that set no headers.", LAST_EVENT_ID.schema)
PAGE = (
    Parameter(
        "status",
        "query",
        "Only runs of this status; repeat it for several.",
        {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}},
        ["succeeded", "failed"],
    ),
    Parameter("before", "query", "Only runs that were accepted before this one.", {"type": "string"}),
    Parameter("limit", "query", "How many.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, 10),
)


def operations(engine: str) -> dict[str, Operation]:
    """Every route of a server with this engine, by method and path as Flask has them.

    Args:
        engine: ``demo`` or ``direct``.
    """
    described = {**_server(engine), **_chat(engine), **_openai(engine)}
    return {**described, **_runs()} if engine == "demo" else described


def _server(engine: str) -> dict[str, Operation]:
    return {
        "GET /health": Operation(
            "get_health",
            "server",
            "How the server is",
            "Answers at once, whatever runs: the model, the line and the device.",
            {JSON: Health | BriefHealth},
            public=True,
        ),
        "GET /livez": Operation(
            "get_livez", "server", "Whether the server lives", "For a supervisor.", {JSON: Status}, public=True
        ),
        "GET /readyz": Operation(
            "get_readyz",
            "server",
            "Whether a run would be accepted",
            "For a load balancer. A full line is not looked at.",
            {JSON: Status},
            refusals=READY[engine],
            public=True,
        ),
        "GET /metrics": Operation(
            "get_metrics",
            "server",
            "Figures for Prometheus",
            "As text, or as OpenMetrics; docs/metrics.md has each.",
            {TEXT: str},
            refusals=refusals.of(MetricsUnavailable),
        ),
        "GET /openapi.json": Operation(
            "get_openapi",
            "server",
            "This description",
            "OpenAPI 3.1. It differs by engine: the direct one has no runs.",
            {JSON: dict[str, Any]},
            public=True,
        ),
    }


def _chat(engine: str) -> dict[str, Operation]:
    keyed = engine == "demo"
    common: dict[str, Any] = {
        "body": Request,
        "parameters": (IDEMPOTENCY_KEY,) if keyed else (),
    }
    refused = (*BODY, *ACCEPTED[engine], *WAITING, *(refusals.of(IdempotencyConflict) if keyed else ()))
    runs = "Runs the demo with it as a child process" if keyed else "Asks the model in memory"
    kinds = EVENTS if keyed else {kind: EVENTS[kind] for kind in ("queued", "started", "text", "done")}
    return {
        "POST /chat": Operation(
            "chat",
            "chat",
            "Answer one prompt",
            f"{runs}, and waits for the answer.",
            {JSON: ChatAnswer},
            refusals=(*refused, *ANSWERED[engine]),
            **common,
        ),
        "POST /chat/stream": Operation(
            "chat_stream",
            "chat",
            "Answer one prompt, as events",
            f"{runs}, and tells what happens as it happens. The last event is `done`, whether the run has an answer or "
            "not.",
            {STREAM: kinds},
            refusals=refused,
            **common,
        ),
    }


def _openai(engine: str) -> dict[str, Operation]:
    may_wait = (*BODY, *refusals.of(ModelNotFound), *ACCEPTED[engine], *WAITING)
    one = "" if engine == "direct" else " This engine takes one message of a user."
    text = Operation(
        "create_completion",
        "openai",
        "Continue a text",
        "For OpenAI clients. The text is continued as it is, without the chat template.",
        {JSON: TextCompletion, STREAM: [TextChunk, TextCompletion, BrokenOff]},
        body=TextCompletions,
        refusals=(*may_wait, *ANSWERED[engine]),
        openai=True,
    )
    if engine == "demo":
        text = Operation(
            "create_completion",
            "openai",
            "Continue a text (direct engine only)",
            "For OpenAI clients. This server's engine is the demo, which cannot: it always answers an error.",
            {},
            body=TextCompletions,
            refusals=may_wait,
            openai=True,
        )
    return {
        "GET /v1/models": Operation(
            "list_models",
            "openai",
            "The model",
            "For OpenAI clients: the one model that is served.",
            {JSON: Models},
            refusals=(*refusals.of(SetupError), *(LEDGER if engine == "demo" else ())),
            openai=True,
        ),
        "POST /v1/chat/completions": Operation(
            "create_chat_completion",
            "openai",
            "Answer a conversation",
            "For OpenAI clients. What the engine cannot do is refused, never ignored; the last message is the user's."
            + one,
            {JSON: ChatCompletion, STREAM: [ChatChunk, ChatUsageChunk, BrokenOff]},
            body=ChatCompletions,
            refusals=(*may_wait, *ANSWERED[engine]),
            openai=True,
        ),
        "POST /v1/completions": text,
    }


def _runs() -> dict[str, Operation]:
    there = (*refusals.of(NoSuchRun), *LEDGER)
    return {
        "POST /runs": Operation(
            "create_runs",
            "runs",
            "Accept runs",
            "Accepts one `prompt`, or 1 to 32 `prompts`: all of them or none. It does not wait for them: follow the "
            "events, or look at the run again.",
            {JSON: Accepted},
            body=Request | Requests,
            parameters=(IDEMPOTENCY_KEY,),
            refusals=(*BODY, *ACCEPTED["demo"], *refusals.of(IdempotencyConflict)),
            status=202,
            links=("get_run", "get_run_events", "get_run_log", "cancel_run"),
        ),
        "GET /runs": Operation(
            "list_runs",
            "runs",
            "List runs",
            "The newest first. `next` is the path of the following page.",
            {JSON: RunPage},
            parameters=PAGE,
            refusals=(*refusals.of(BadRequest), *LEDGER),
        ),
        "GET /runs/<run_id>": Operation(
            "get_run",
            "runs",
            "Show a run",
            "Whatever its status.",
            {JSON: RunRecord},
            parameters=(RUN_ID,),
            refusals=there,
        ),
        "GET /runs/<run_id>/events": Operation(
            "get_run_events",
            "runs",
            "Follow a run",
            "What happens in it, live and after the fact, from the first event or from the one after `Last-Event-ID`. "
            "The last event is `done`. A comment is sent every 15 seconds when nothing else is.",
            {STREAM: EVENTS},
            parameters=(RUN_ID, LAST_EVENT_ID, AFTER),
            refusals=(*refusals.of(BadRequest), *there, *WAITING),
        ),
        "GET /runs/<run_id>/log": Operation(
            "get_run_log",
            "runs",
            "Show a run's log",
            "All that its child has printed so far; while it runs and after.",
            {TEXT: str},
            parameters=(RUN_ID,),
            refusals=(*there, *refusals.of(NoLog)),
        ),
        "POST /runs/<run_id>/cancel": Operation(
            "cancel_run",
            "runs",
            "Cancel a run",
            "One that waits or runs. Cancelling twice is the same as once.",
            {JSON: RunRecord},
            parameters=(RUN_ID,),
            refusals=(*there, *refusals.of(RunEnded)),
        ),
    }
