"""A thousand runs, one after another, by one server: it grows in no way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from support.real_server import RealServer, Site
from support.waiting import pause, until

RUNS = 1000
WARM_UP = 100
KEEP_RUNS = 50
JUST_ENDED_SECONDS = 60  # what has just ended is kept in any case
FILES_A_RUN = 4  # its folder, what it printed to stdout and stderr, and the report
LEDGER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Size:
    """What a server uses."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, server: RealServer) -> Size:
        process = psutil.Process(server.process.pid)
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


def _files(site: Site) -> int:
    return sum(1 for _ in (site.state / "runs").rglob("*"))


@pytest.mark.timeout(3600)
def test_a_thousand_runs_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path)
    with site.serving(keep_runs=KEEP_RUNS) as server:
        warm = Size.of(server)
        for number in range(RUNS):
            answer = server.chat(f"run {number}")
            assert answer.json()["response"] == f"ok: run {number}"
            if number + 1 == WARM_UP:
                warm = Size.of(server)
        until(server.is_idle)
        end = Size.of(server)
        pause(JUST_ENDED_SECONDS + 1)
        assert server.chat("and now?").status_code == 200
        until(server.is_idle)
        files = _files(site)
        ledger = sum(path.stat().st_size for path in site.state.glob("ledger.db*"))
        assert site.processes() == []
    with capsys.disabled():
        print(f"\n  after {WARM_UP}: {warm}\n  after {RUNS}: {end}; {files} files, {ledger} bytes of ledger;", end="")
    assert site.overlaps() == ""
    assert end.memory - warm.memory < 16 * 2**20
    assert abs(end.descriptors - warm.descriptors) <= 8  # connections of the ledger come and go
    assert end.threads - warm.threads <= 2  # who follows a child, and who looks for those who wait, come and go
    assert files <= (KEEP_RUNS + 1) * FILES_A_RUN
    assert ledger < LEDGER_BYTES
