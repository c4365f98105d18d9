"""Devices that are drained: they take no run until they are put back into service."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import Lab
from support.real_server import RealServer, Site
from support.waiting import until

DEVICE = [sys.executable, "-m", "demo_api", "device"]


def device(site: Site, *words: str) -> str:
    ended = subprocess.run(
        [*DEVICE, *words], env=site.environ, stdout=subprocess.PIPE, text=True, timeout=100, check=True
    )
    return ended.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(params=["off", "imports", "model"])
def server(site: Site, request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with site.serving(warm=request.param) as server:
        yield server


def test_a_drained_device_is_left_alone_until_it_is_resumed(site: Site, server: RealServer) -> None:
    assert server.chat("Hello").status_code == 200
    assert device(site, "drain") == "device: drained"
    assert not site.processes()  # a warm child neither
    assert server.device()["state"] == "drained"
    assert server.device()["since"]
    refused = server.chat("Hello")
    assert (refused.status_code, refused.json()["code"]) == (503, "device_failed")
    assert refused.json()["error"] == "The device is drained: it takes no runs."
    assert "demo-api device resume" in refused.json()["next_step"]
    assert server.get("/readyz").status_code == 503
    assert device(site, "status") == "device: drained"
    assert device(site, "resume") == "device: free"
    assert server.chat("Hello").json()["response"] == "ok: Hello"


def test_what_runs_goes_on_and_what_waits_stays(site: Site) -> None:
    with site.serving() as server:
        running = server.submit("hang")
        until((site.home / "done: hang").exists)
        waiting = server.submit("Hello", max_tokens=7)  # not alike
        with subprocess.Popen([*DEVICE, "drain"], env=site.environ, stderr=subprocess.PIPE, text=True) as drain:
            until(lambda: "drained" in device(site, "status"))
            assert drain.poll() is None
            drain.send_signal(signal.SIGINT)
            assert drain.wait(60) == 130
            assert drain.stderr is not None
            assert "device takes no further run, but one still runs on it." in drain.stderr.read()
        assert server.device()["state"] == "busy"
        server.post(f"/runs/{running}/cancel")
        assert device(site, "drain") == "device: drained"  # when the child has ended
        assert server.run(waiting)["status"] == "queued"
        device(site, "resume")
        assert server.ending(waiting)["response"] == "ok: Hello"


def test_a_reset_leaves_a_device_drained(site: Site) -> None:
    site.environ["DEMO_API_RESET_COMMAND"] = "true"
    with site.serving():
        device(site, "drain")
        assert device(site, "reset") == device(site, "clear") == "device: drained"
        assert device(site, "resume") == "device: free"


def test_a_device_of_another_host_is_drained_from_any(lab: Lab) -> None:
    door = lab.door()
    lab.worker(devices="left; right")
    until(lambda: door.get("/readyz").status_code == 200)
    lab.site.environ["DEMO_API_DATABASE_URL"] = lab.url
    (node,) = door.get("/health").json()["nodes"]
    left, right = (f"{node['node']}/{each['name']}" for each in node["devices"])
    assert device(lab.site, "drain", left) == f"{left}: drained"
    for prompt in ("one", "two", "three"):
        door.wait_for_event(door.submit(prompt), device="right")
    assert device(lab.site, "drain", right) == f"{right}: drained"
    assert door.chat("Hello").json()["code"] == "device_failed"
    assert device(lab.site, "resume", left) == f"{left}: free"
    until(lambda: door.chat("Hello").status_code == 200)
