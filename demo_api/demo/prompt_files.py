"""Files of prompts, in the demo's own format."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from demo_api.errors import BadRequest

BUNDLED = Path(__file__).parent / "prompts"
"""The files of the folder ``prompts``: a link in a checkout, so that they are packaged too."""


class _Entry(BaseModel):
    prompt: str
    context: object = None


_FILE = TypeAdapter(list[_Entry])


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file such as ``[{"prompt": "What is 2+2?"}]``, in order; at least one.

    Raises:
        BadRequest: it cannot be read or is no such file; the sentence names the entry.
    """
    try:
        entries = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", next_step=_NEXT_STEP) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f"{place}: " for place in first["loc"])  # the number of the entry, from 0, and its key
        raise BadRequest(f"{path} is no prompt file: {where}{first['msg']}.", next_step=_NEXT_STEP) from None
    if not entries:
        raise BadRequest(f"{path} has no prompts.", next_step=_NEXT_STEP)
    if any(entry.context is not None for entry in entries):
        # The demo downloads it, from a URL, and puts it before the prompt. No server does: it would be another prompt.
        raise BadRequest(f"{path} has a context, which is not sent.", next_step="Write it into the prompt.")
    return [entry.prompt for entry in entries]


_NEXT_STEP = 'A prompt file is a JSON list such as [{"prompt": "What is 2+2?"}].'
