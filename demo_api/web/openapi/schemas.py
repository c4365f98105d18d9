"""JSON Schemas of the types that travel."""

from __future__ import annotations

from collections.abc import Iterable
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
        asked = [(_key(each), "validation", TypeAdapter(each)) for each in _once(bodies)]
        told = [(_key(each), "serialization", TypeAdapter(each)) for each in _once(answers)]
        self._references, made = TypeAdapter.json_schemas(
            [*asked, *told],  # type: ignore[list-item]
            ref_template=_WHERE,
            schema_generator=_Readable,
        )
        self.components: JsonObject = dict(sorted(made["$defs"].items()))
        for schema in self.components.values():
            schema.pop("title", None)  # it has its name already

    def of(self, kind: object) -> JsonObject:
        """The schema of a type: mostly a reference."""
        found = {mode: schema for (key, mode), schema in self._references.items() if key == _key(kind)}
        return dict(next(iter(found.values())))


def _key(kind: object) -> str:
    return repr(kind)


def _once(kinds: Iterable[Any]) -> list[Any]:
    return list({_key(kind): kind for kind in kinds}.values())
