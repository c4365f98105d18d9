"""Files of prompts, in the demo's own format."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from demo_api.errors import BadRequest
from demo_api.messages import in_utf8

BUNDLED = Path(__file__).parent / "prompts"
"""The files of the folder ``prompts``: a link in a checkout, so that they are packaged too."""

_FORMAT = 'A prompt file is a JSON list such as [{"prompt": "What is 2+2?"}].'
_CONTEXT = "the demo would download what it names; put the text into the prompt"
_LIKE_JSON = re.compile(r'\s*\[\s*[\[{"\]]')


class PromptEntry(BaseModel):
    """One prompt, as the demo reads it; it may have keys that are for others."""

    prompt: str
    context: object = None


_Entry = TypeVar("_Entry", bound=BaseModel)


def read_entries(path: Path, kind: type[_Entry]) -> list[_Entry]:
    """The entries of a file such as ``[{"prompt": "What is 2+2?"}]``, in order; at least one.

    Args:
        kind: what an entry must be, such as ``PromptEntry``.

    Raises:
        BadRequest: it cannot be read or is no such file; the sentence names the entry, from 1, and its key.
    """
    return _entries(_content(path), path, kind)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, for a server.

    Raises:
        BadRequest: as ``read_entries``, or a prompt has a context.
    """
    return _prompts(_content(path), path)


def read_prompts_or_lines(path: Path) -> list[str]:
    """The prompts of a file in the demo's format, or of any other text a prompt for each line that is not blank.

    Args:
        path: ``-`` is standard input.

    Raises:
        BadRequest: as ``read_prompts``; a file in the demo's format is one that begins like a list of JSON, or has a
            name that ends in ``.json``.
    """
    content = _content(path)
    text = _text(content, path)
    if path.suffix.lower() == ".json" or _LIKE_JSON.match(text):
        return _prompts(content, path)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadRequest(f"{_named(path)} has no prompts.", next_step=f"Write one prompt a line. {_FORMAT}")
    return lines


def read_one_prompt(path: Path) -> str:
    """The whole text of a file as one prompt, without the line end that closes it.

    Args:
        path: ``-`` is standard input.

    Raises:
        BadRequest: it cannot be read.
    """
    return _text(_content(path), path).removesuffix("\n").removesuffix("\r")


def _content(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        sentence = f"The prompt file {_named(path)} cannot be read: {error.strerror}."
        raise BadRequest(sentence, next_step=_FORMAT) from None


def _text(content: bytes, path: Path) -> str:
    try:
        return in_utf8(content).decode("utf-8-sig") if content else ""
    except ValueError as error:
        raise BadRequest(f"{_named(path)} is no text: {error}.", next_step="Save it in UTF-8.") from None


def _named(path: Path) -> str:
    return "Standard input" if str(path) == "-" else str(path)


def _entries(content: bytes, path: Path, kind: type[_Entry]) -> list[_Entry]:
    try:
        entries = TypeAdapter(list[kind]).validate_json(in_utf8(content))  # type: ignore[valid-type]
    except ValidationError as error:
        reason = _reason(error.errors(include_url=False, include_input=False)[0], kind)
        raise BadRequest(f"{_named(path)} is no prompt file: {reason}.", next_step=_FORMAT) from None
    except ValueError as error:
        raise BadRequest(f"{_named(path)} is no prompt file: {error}.", next_step="Save it in UTF-8.") from None
    if not entries:
        raise BadRequest(f"{_named(path)} is no prompt file: it has no prompts.", next_step=_FORMAT)
    return entries


def _prompts(content: bytes, path: Path) -> list[str]:
    entries = _entries(content, path, PromptEntry)
    if any(entry.context is not None for entry in entries):
        # The demo downloads it, from a URL, and puts it before the prompt. No server does: it would be another prompt.
        raise BadRequest(f"{_named(path)} has a context, which is not sent.", next_step="Write it into the prompt.")
    return [entry.prompt for entry in entries]


def _reason(first: Any, kind: type[BaseModel]) -> str:
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return f"it is not JSON: {message.removeprefix('Invalid JSON: ')}"
    number, *keys = first["loc"] or [None]
    if first["type"] == "extra_forbidden":
        message = _CONTEXT if keys == ["context"] else _unknown_key(kind, keys)
    where = "" if number is None else f"entry {number + 1}"
    if keys:
        where += f", {'.'.join(map(str, keys))!r}"
    return ": ".join(filter(None, (where, f"{message[0].lower()}{message[1:]}")))


def _unknown_key(kind: Any, keys: list[Any]) -> str:
    for key in keys[:-1]:
        kind = kind.model_fields[key].annotation
    return f"this key is not known; the keys here are {', '.join(kind.model_fields)}"
