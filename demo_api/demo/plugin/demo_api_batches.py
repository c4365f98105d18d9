"""Runs pytest once for each batch, in one process that keeps the device open and the model loaded in between.

``python -m demo_api_batches WORDS`` is ``python -m pytest -p demo_api_child WORDS`` for the first batch. When that has
ended, a line of JSON names the next one's ``words``, ``config`` (what ``DEMO_API_CHILD`` is to be), ``stdout`` and
``stderr``. At the end of input, and where the model may not be what it was, the device is closed and the process ends.

Standard library only, Python 3.8+, pytest 7+.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import demo_api_child
import demo_api_control
import demo_api_kept_model
import pytest


def main() -> int:
    """Returns the exit code of the last run."""
    store, words = demo_api_kept_model.store, sys.argv[1:]
    try:
        while True:
            # As objects, not by name: pytest would warn that it cannot rewrite what is imported already.
            code = int(pytest.main(words, plugins=[demo_api_child, demo_api_kept_model]))
            sys.stdout.flush()
            if not (demo_api_child.is_as_before() and store.models and store.surroundings):
                return code
            demo_api_control.log(f"ended {code}")
            following = demo_api_control.next_line()
            if following is None:
                return code
            store.surroundings.restore()
            words = _prepare(following)
    finally:
        store.close()


def _prepare(following: dict[str, Any]) -> list[str]:
    os.environ["DEMO_API_CHILD"] = following["config"]
    for number, stream in ((1, "stdout"), (2, "stderr")):
        fd = os.open(following[stream], os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, number)
        os.close(fd)
    words: list[str] = following["words"]
    return words


if __name__ == "__main__":
    sys.exit(main())
