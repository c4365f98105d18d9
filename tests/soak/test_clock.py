"""The wall clock is set an hour forward and back while a real server works: nothing waits, is lost or is made up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.real_server import Site

# As the kernel's own functions, with what stands in the file CLOCK_OFFSET added: seconds. Only root can set the clock,
# and everybody else's with it.
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) {
    char text[32] = {0};
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, text, 31) < 0) return 0;
    close(file);
    return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += offset();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""
HOUR = 3600


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.environ["CHILD_PAUSE"] = "0.1"
    return site


@pytest.fixture
def set_clock(site: Site, tmp_path: Path) -> Callable[[int], None]:
    """Sets the wall clock of the site's servers and their children so many seconds forward or, below zero, back."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "clock.c").write_text(CLOCK)
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "clock.c"], check=True)
    site.environ |= {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}

    def set_to(seconds: int) -> None:
        new = offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(offset)

    set_to(0)
    return set_to


@pytest.mark.parametrize("phase", ["startup", "load", "prefill", "decode", "output"])
@pytest.mark.parametrize("hour", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_run_ends_as_usual_and_no_time_is_made_up(
    site: Site, set_clock: Callable[[int], None], phase: str, hour: int
) -> None:
    with site.serving(lease=10, run_timeout=60) as server:
        run_ids = [server.submit("Hello"), server.submit("waits meanwhile", max_tokens=5)]
        server.wait_for_event(run_ids[0], phase=phase)
        set_clock(hour)
        for run in map(server.ending, run_ids):
            assert (run["status"], run["attempts"]) == ("succeeded", 1)
            seconds = {name: value for name, value in run["timing"].items() if name.endswith("_seconds")}
            assert all(value is None or 0 <= value < 60 for value in seconds.values()), seconds
            assert run["time_seconds"] is None or 0 <= run["time_seconds"] < 60
        assert server.get("/readyz").status_code == 200
    assert site.overlaps() == ""


@pytest.mark.parametrize("hour", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_limit_of_requests_is_over_after_a_minute(site: Site, set_clock: Callable[[int], None], hour: int) -> None:
    with site.serving(rate_limit=3) as server:
        assert [server.get("/runs").status_code for _ in range(4)] == [200] * 3 + [429]
        set_clock(hour)
        assert [server.get("/runs").status_code for _ in range(4)] == [200] * 3 + [429]
        assert int(server.get("/runs").headers["Retry-After"]) <= 60
