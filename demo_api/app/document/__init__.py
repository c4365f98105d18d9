"""The OpenAPI document: what the routes are, from the types that they check requests with and make answers of."""

from demo_api.app.document.document import build
from demo_api.app.document.operations import PAGES
from demo_api.app.document.schemas import JsonObject

__all__ = ["PAGES", "JsonObject", "build"]
