"""What Schemathesis must know of this API. It runs in an environment that has neither demo_api nor the tests."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import GenerationMode

SERVED_MODEL = "echo"

_demo: list[bool] = []


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Clients must bear fields that they do not know, so the document allows them; here each would be one forgotten."""
    _demo.append("/runs" in raw_schema["paths"])
    for schema in raw_schema["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """What no schema can say: a run, or the model, that is there; whose the last message is; what the demo cannot."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.path == "/runs" and case.query:
        case.query.pop("before", None)
    if case.path.startswith("/v1/") and isinstance(case.body, dict):
        case.body["model"] = SERVED_MODEL
        if _demo[-1]:
            case.body.pop("stop", None)
        if "messages" in case.body:
            before = [] if _demo[-1] else case.body["messages"][:999]  # the demo takes one message
            case.body["messages"] = [*before, {"role": "user", "content": "Hello"}]
