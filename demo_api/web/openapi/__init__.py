"""The OpenAPI document, made of what the routes say of themselves and of the types that they check and answer with."""
