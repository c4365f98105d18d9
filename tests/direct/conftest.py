"""Settings for stand-in checkouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkouts import make_checkout

from demo_api.config import Settings


@pytest.fixture
def tt_settings(settings: Callable[..., Settings], tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings for a stand-in checkout."""

    def make(generation: str, **flags: object) -> Settings:
        model = tmp_path / "Tiny-1B-Instruct"
        model.mkdir(exist_ok=True)
        variable = {"llama_dir": str(model)} if generation == "2025" else {"hf_model": "meta-llama/Tiny-1B-Instruct"}
        return settings(**({"demo_home": make_checkout(tmp_path / "checkout", generation)} | variable | flags))

    return make
