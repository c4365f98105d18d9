"""A state folder on a disk that is full: a clear answer, nothing damaged, and all is well when there is room again."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.real_server import Site
from support.waiting import pause, until

MEGABYTE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={8 * MEGABYTE}", "none", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def site(tmp_path: Path, small_disk: Path) -> Site:
    return Site(tmp_path, state=small_disk / "state")


def _fill(disk: Path) -> None:
    with open(disk / "ballast", "wb", buffering=0) as file:
        for size in (MEGABYTE, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def _make_room(disk: Path) -> None:
    (disk / "ballast").unlink()


def _is_well(site: Site, disk: Path) -> None:
    _make_room(disk)
    with site.serving() as server:
        assert server.chat("and now?").json()["response"] == "ok: and now?"
        until(server.is_idle)
    assert site.overlaps() == ""
    site.check_ledger()


def test_what_cannot_be_accepted_is_refused(site: Site, small_disk: Path) -> None:
    with site.serving() as server:
        assert server.chat("Hello").status_code == 200
        _fill(small_disk)
        refused = 0
        for number in range(50):  # the write-ahead log may have room for some
            answer = server.post("/runs", {"prompt": "x" * 30_000, "max_tokens": number + 1})
            if answer.status_code != 202:
                refused += 1
                assert (answer.status_code, answer.json()["code"]) == (507, "storage_full"), answer.text
                assert "Make room" in answer.json()["next_step"]
        assert refused > 40
        unready = server.get("/readyz")
        assert (unready.status_code, unready.json()["code"]) == (507, "storage_full")
        assert server.get("/health").json()["status"] == "unhealthy"
        health = server.get("/health", seconds=5)
        assert health.status_code == 200
        answer = server.chat("Hello")
        assert answer.status_code in (503, 507), answer.text
        assert answer.json()["next_step"]
        _make_room(small_disk)
        assert server.chat("Hello").json()["response"] == "ok: Hello"
        until(server.is_idle)
        for run in server.get("/runs?limit=200").json()["runs"]:
            server.ending(run["run_id"])
        assert "Traceback" not in server.log()
        _fill(small_disk)
    _is_well(site, small_disk)


def test_a_disk_that_fills_up_while_a_child_runs(site: Site, small_disk: Path) -> None:
    site.environ["CHILD_PAUSE"] = "0.05"
    answers: list[requests.Response] = []
    with site.serving() as server:
        asking = threading.Thread(target=lambda: answers.append(server.chat("Hello")))
        asking.start()
        until(lambda: server.get("/health").json()["queue"]["running"] == 1, tick_seconds=0.02)
        run_id = server.get("/runs").json()["runs"][0]["run_id"]
        waiting = server.submit("waits in the line", max_tokens=5)
        server.wait_for_event(run_id, phase="load")
        _fill(small_disk)
        asking.join(60)
        assert not asking.is_alive()
        assert (answers[0].status_code, answers[0].json()["code"]) == (507, "storage_full"), answers[0].text
        assert answers[0].json()["run_id"] == run_id
        assert "Make room" in answers[0].json()["next_step"]
        assert server.get("/health", seconds=5).status_code == 200
        assert site.processes() == []
        _make_room(small_disk)
        run = server.ending(run_id)
        assert (run["status"], run["code"]) == ("failed", "storage_full")
        assert server.ending(waiting)["status"] == "succeeded"
        until(server.is_idle)
        assert "Traceback" not in server.log()
        _fill(small_disk)
    _is_well(site, small_disk)


def test_a_server_killed_on_a_full_disk_is_followed_by_one_that_goes_on(site: Site, small_disk: Path) -> None:
    site.environ["CHILD_PAUSE"] = "0.05"
    with site.serving() as server:
        run_ids = [server.submit("Hello"), server.submit("waits", max_tokens=5)]
        server.wait_for_event(run_ids[0], phase="load")
        _fill(small_disk)
        pause(1)
        server.kill()
    until(lambda: site.processes() == [])
    _make_room(small_disk)
    with site.serving() as server:
        for run_id in run_ids:
            assert server.ending(run_id)["status"] in ("succeeded", "failed")
        assert server.chat("Hello").json()["response"] == "ok: Hello"
    assert site.overlaps() == ""
    site.check_ledger()
