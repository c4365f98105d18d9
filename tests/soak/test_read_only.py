"""A ledger that can no longer be written while a run goes on, as on a disk whose errors made the kernel protect it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real_server import Site
from support.waiting import until


@pytest.fixture
def site() -> Iterator[Site]:
    # Not in memory: the flag that stops those who have the files open already is one of disks.
    with tempfile.TemporaryDirectory(prefix="demo-api-", dir="/var/tmp") as folder:
        site = Site(Path(folder))
        yield site
        _chattr(site, "-i")


def _chattr(site: Site, flag: str) -> None:
    files = [str(path) for path in site.state.glob("ledger.db*")]
    done = subprocess.run(["chattr", flag, *files], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"files cannot be made immutable: {done.stderr.strip()}")


def test_a_ledger_that_becomes_read_only_makes_the_server_unready_and_loses_nothing(site: Site) -> None:
    site.environ["CHILD_PAUSE"] = "0.1"
    with site.serving() as server:
        run_ids = [server.submit("Hello"), server.submit("waits", max_tokens=5)]
        server.wait_for_event(run_ids[0], phase="load")
        _chattr(site, "+i")
        refused = server.post("/runs", {"prompt": "a"})
        assert (refused.status_code, refused.json()["code"]) == (503, "ledger_unavailable")
        unready = server.get("/readyz")
        assert (unready.status_code, unready.json()["code"]) == (503, "ledger_unavailable")
        health = server.get("/health").json()
        assert health["status"] == "unhealthy"
        assert health["note"].startswith("The ledger cannot be used now: ")
        assert server.run(run_ids[1])["status"] == "queued", "what is there can be read"
        until(lambda: site.processes() == [])
        assert server.log().count("WARNING batch ") == 1
        _chattr(site, "-i")
        assert [server.ending(run_id)["status"] for run_id in run_ids] == ["succeeded"] * 2
        assert server.get("/readyz").status_code == 200
        assert server.get("/health").json()["status"] == "healthy"
        assert "Traceback" not in server.log()
    assert site.overlaps() == ""
    site.check_ledger()
