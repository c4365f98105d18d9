"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.stranger import strangers


@pytest.fixture
def stranger() -> Iterator[Callable[..., str]]:
    """Starts another program's servers, and gives their addresses."""
    with strangers() as start:
        yield start
