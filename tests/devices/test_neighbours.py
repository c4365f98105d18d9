"""Two neighbouring versions on one database: doors and workers are upgraded one after another, while runs go on."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psycopg
from support.lab import Lab
from support.next_version import NEXT, make_next_version
from support.real_server import PROGRAM
from support.waiting import until

from demo_api.queue import schema


def run(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    environ = lab.site.environ | {"DEMO_API_DATABASE_URL": lab.url}
    return subprocess.run([*lab.program, *words], env=environ, capture_output=True, text=True, timeout=100, check=False)


def colours(lab: Lab) -> set[str | None]:
    with psycopg.connect(lab.url) as connection:
        return {colour for (colour,) in connection.execute("SELECT colour FROM runs")}


def test_a_lab_is_upgraded_without_an_outage(lab: Lab, tmp_path: Path) -> None:
    next_version = make_next_version(tmp_path / "next")
    old_door, old_worker = lab.door(), lab.worker()
    until(lambda: old_door.get("/readyz").status_code == 200)

    lab.program = next_version
    refused = run(lab, "serve", "--no-devices", "--port", "0")
    assert refused.returncode == 3
    assert "whose workers use it" in refused.stderr
    assert "Run `demo-api database upgrade`" in refused.stderr
    upgraded = run(lab, "database", "upgrade")
    assert upgraded.stdout == f"The ledger's tables were upgraded from version {schema.VERSION} to {NEXT}.\n"
    assert old_door.chat("an old door and an old worker").status_code == 200

    new_door = lab.door()
    assert new_door.chat("a new door and an old worker").status_code == 200
    lab.worker()
    until(lambda: len(new_door.get("/health").json()["nodes"]) == 2)
    old_worker.process.send_signal(signal.SIGTERM)
    assert old_worker.process.wait(60) == 0
    assert old_door.chat("an old door and a new worker").status_code == 200
    assert colours(lab) == {None, "blue"}  # both versions wrote

    lab.program = PROGRAM
    again = lab.door()  # the old version starts on the new tables, too
    assert again.chat("an old door that was restarted").status_code == 200
    assert "there was nothing to do" in run(lab, "database", "upgrade").stdout
