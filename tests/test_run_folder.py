from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from demo_api import run_folder
from demo_api.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "20260101-000000-abcd")


def test_only_the_owner_can_read_it(folder: RunFolder) -> None:
    folder.write(["a secret"], {})
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.prompts.stat().st_mode & 0o777 == 0o600
    assert folder.order.stat().st_mode & 0o777 == 0o600


def test_the_prompt_file_is_ascii_and_has_prompts_only(folder: RunFolder) -> None:
    prompts = ['caf\u00e9 \u2603 "quoted" \\ \u2028', "line\nline\r\n\0"]
    folder.write(prompts, {})
    content = folder.prompts.read_bytes()
    assert content.isascii()
    assert json.loads(content) == [{"prompt": prompt} for prompt in prompts]


def test_the_prompts_are_forgotten_and_the_logs_are_kept(folder: RunFolder) -> None:
    folder.write(["a secret"], {})
    folder.stdout.write_text("report")
    folder.forget_prompts()
    assert [path.name for path in folder.path.iterdir()] == ["stdout.txt"]


def test_a_run_is_never_written_over(folder: RunFolder) -> None:
    with pytest.raises(FileExistsError):
        RunFolder.create(folder.path.parent, folder.path.name)


def test_the_readable_log_has_the_text_of_each_record_and_all_else_as_it_is(folder: RunFolder) -> None:
    folder.stderr.write_bytes(
        b'{"text": "12:00 | INFO - caf\\u00e9\\n", "record": {}}\nraw \xff line\n{"text": broken\n'
    )
    folder.stdout.write_bytes(b"1 passed\n")
    assert folder.readable_log() == '12:00 | INFO - caf\u00e9\nraw \ufffd line\n{"text": broken\n1 passed\n'


def test_the_readable_log_of_a_child_that_printed_nothing_is_empty(folder: RunFolder) -> None:
    assert folder.readable_log() == ""


def test_the_readable_log_of_a_flood_has_its_ends_and_says_what_is_left_out(folder: RunFolder) -> None:
    line = b"x" * 99 + b"\n"
    folder.stdout.write_bytes(b"first\n" + line * (3 * run_folder.READABLE_LIMIT // 100) + b"last\n")
    log = folder.readable_log()
    assert log.startswith("first\n")
    assert log.endswith("last\n")
    assert f"the whole is in {folder.stdout}" in log
    assert len(log) < 1.1 * run_folder.READABLE_LIMIT


def test_tidy_keeps_the_newest_and_the_young_and_no_prompts(tmp_path: Path) -> None:
    names = [f"2026010{day}-000000-abcd" for day in range(1, 6)]
    for name in names:
        RunFolder.create(tmp_path, name).write(["x"], {})
    long_ago = time.time() - 40 * run_folder.SECONDS_A_DAY
    os.utime(tmp_path / names[4], (long_ago, long_ago))
    run_folder.tidy(tmp_path, keep=3, days=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == names[2:4]
    assert list(tmp_path.glob("*/*")) == []
