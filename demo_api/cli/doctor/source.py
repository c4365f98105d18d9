"""What the demo's own files say, without running them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

# pytest reads the conftest.py of the demo's folder and of those above it before it reads the command line.
_CONFTEST_FOLDERS = (".", "models", "models/tt_transformers", "models/tt_transformers/demo")


def imported(script: Path) -> set[str]:
    """The top-level names of the modules that a file imports when it is loaded; empty if it cannot be read."""
    names = set()
    for node in _parsed(script).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def declared_options(demo_home: Path) -> dict[str, str]:
    """The options that the demo home's conftest files declare, each with its type, or ``str`` where none is given."""
    options: dict[str, str] = {}
    for folder in _CONFTEST_FOLDERS:
        for call in _option_calls(demo_home / folder / "conftest.py"):
            kind = next((ast.unparse(word.value) for word in call.keywords if word.arg == "type"), "str")
            names = [word.value for word in call.args if isinstance(word, ast.Constant)]
            options.update({name: kind for name in names if isinstance(name, str)})
    return options


def _option_calls(conftest: Path) -> Iterator[ast.Call]:
    for node in ast.walk(_parsed(conftest)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "addoption":
            yield node


def _parsed(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a checkout's odd escapes are not this command's to complain about
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])
