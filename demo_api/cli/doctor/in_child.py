"""What the child's interpreter has: its text is run there with ``-c``, from the demo home.

Standard library only, Python 3.8+. The arguments are names of modules. It looks for them and imports none of them: with
ttnn an import may open a device. It prints one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib import metadata
from typing import Any


def version(name: str) -> str | None:
    """The version of a module; "unknown" where no distribution tells it, None where it cannot be imported."""
    try:
        if importlib.util.find_spec(name) is None:
            return None
    except (ImportError, ValueError):
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def models() -> dict[str, Any]:
    """Where ``models.tt_transformers`` is found, or which package ``models`` hides it."""
    parent = importlib.util.find_spec("models")
    # A folder without __init__.py has no origin.
    origin = parent.origin if parent is not None and parent.origin not in (None, "namespace") else None
    found: dict[str, Any] = {"folders": [], "origin": origin, "owners": owners(origin), "error": None}
    try:
        spec = importlib.util.find_spec("models.tt_transformers")  # imports the parent: seldom more than a name
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    else:
        found["folders"] = list(spec.submodule_search_locations or []) if spec is not None else []
    return found


def owners(origin: str | None) -> list[str]:
    """The distributions that have installed this file."""
    if origin is None:
        return []
    return sorted({name for each in metadata.distributions() for name in owner(each, os.path.realpath(origin))})


def owner(distribution: metadata.Distribution, origin: str) -> list[str]:
    """The distribution's name, in a list, if it has installed this file."""
    for file in distribution.files or []:
        if file.name == "__init__.py" and os.path.realpath(str(distribution.locate_file(file))) == origin:
            return [distribution.metadata["Name"].replace("_", "-")]
    return []


if __name__ == "__main__":
    answer = {
        "version": list(sys.version_info[:3]),
        "modules": {name: version(name) for name in sys.argv[1:]},
        "models": models(),
    }
    print("\n" + json.dumps(answer))
