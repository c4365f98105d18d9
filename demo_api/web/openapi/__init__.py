"""The OpenAPI document: what the routes are, from the types that they check requests with and make answers of."""

from demo_api.web.openapi.document import build
from demo_api.web.openapi.operations import PAGES
from demo_api.web.openapi.schemas import JsonObject

__all__ = ["PAGES", "JsonObject", "build"]
