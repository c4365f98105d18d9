"""A ledger that another process keeps locked while runs go on: what happened meanwhile is written down afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.real_server import Site, locked
from support.waiting import pause, until

PHASES = ["startup", "load", "decode_compile", "decode", "output"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_ends_as_it_would_although_the_ledger_is_locked_for_five_seconds(tmp_path: Path, phase: str) -> None:
    site = Site(tmp_path)
    site.environ["CHILD_PAUSE"] = "0.03"
    with site.serving(lease=1) as server, site.serving(lease=1) as other:
        run_id = server.submit("Hello")
        server.wait_for_event(run_id, phase=phase)
        with locked(site.ledger):
            pause(5)
            assert other.get("/health", seconds=2).status_code == 200
        run = other.ending(run_id)
        assert (run["status"], run["response"]) == ("succeeded", "ok: Hello")
        until(server.is_idle)
        assert site.processes() == []
    assert site.overlaps() == ""
    site.check_ledger()
