"""JSON Schemas of the types that requests are checked with and answers are made of."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

JsonObject = dict[str, Any]

_WHERE = "#/components/schemas/{model}"


class _Readable(GenerateJsonSchema):
    """Schemas for people too: no titles that only repeat a name, and null as one more type."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        made = super().nullable_schema(schema)
        either = made.get("anyOf", [])
        if len(either) == 2 and isinstance(either[0].get("type"), str) and not {"const", "enum"} & either[0].keys():
            return {**either[0], "type": [either[0]["type"], "null"]}
        return made


class Schemas:
    """The schemas of some types, under the names of their classes.

    Args:
        bodies: of requests.
        answers: of answers; what is always sent is required here.

    Attributes:
        components: every named schema.
    """

    def __init__(self, bodies: Iterable[Any], answers: Iterable[Any]) -> None:
        kinds = [*((kind, "validation") for kind in bodies), *((kind, "serialization") for kind in answers)]
        made, definitions = TypeAdapter.json_schemas(
            [(kind, mode, TypeAdapter(kind)) for kind, mode in dict.fromkeys(kinds)],  # type: ignore[misc]
            ref_template=_WHERE,
            schema_generator=_Readable,
        )
        self._schemas = {kind: schema for (kind, _), schema in made.items()}
        self.components: JsonObject = dict(sorted(definitions["$defs"].items()))
        for schema in self.components.values():
            schema.pop("title", None)  # it has its name already

    def of(self, kind: Hashable) -> JsonObject:
        """The schema of a type: mostly a reference."""
        return dict(self._schemas[kind])
