from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo_api.config import Settings
from demo_api.demo import run_folder
from demo_api.demo.readable import READABLE_LIMIT
from demo_api.demo.run_folder import RunFolder
from demo_api.errors import SetupError
from demo_api.queue import Ledger


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "20260101-000000-0000abcd")


def test_only_the_owner_can_read_it(folder: RunFolder) -> None:
    folder.write(["a secret"], {})
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.prompts.stat().st_mode & 0o777 == 0o600
    assert folder.plugin_config.stat().st_mode & 0o777 == 0o600


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
    folder.stdout.write_bytes(b"first\n" + line * (3 * READABLE_LIMIT // 100) + b"last\n")
    log = folder.readable_log()
    assert log.startswith("first\n")
    assert log.endswith("last\n")
    assert f"the whole is in {folder.stdout}" in log
    assert len(log) < 1.1 * READABLE_LIMIT


def test_tidy_keeps_the_newest_and_the_young_and_what_runs_and_what_is_not_ours(tmp_path: Path) -> None:
    now = time.time()
    names = [f"20260101-000000-{number:08x}" for number in range(6)]
    ages = [2, 0, 40, 1, 3, 50]  # days; names within one second do not sort by time
    for name, days in zip(names, ages, strict=True):
        RunFolder.create(tmp_path, name)
        if days == 50:
            RunFolder(tmp_path / name).write(["x"], {})
        os.utime(tmp_path / name, (now - days * run_folder.SECONDS_A_DAY,) * 2)
    (tmp_path / "exp1").mkdir()
    (tmp_path / "exp1/prompts.json").touch()
    run_folder.prune(run_folder.existing(tmp_path), keep=3, days=30)
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[1], names[3], names[5], "exp1"}
    assert (tmp_path / "exp1/prompts.json").exists()


@pytest.mark.parametrize("there", [True, False], ids=["there", "removed by a child that left"])
def test_the_prompts_are_written_anew(folder: RunFolder, there: bool) -> None:
    if there:
        folder.write([], {})
    folder.replace_prompts(["a"])
    assert folder.prompts.read_text() == '[{"prompt": "a"}]'


def test_a_folder_that_another_server_has_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    gone = RunFolder(tmp_path / "20260101-000000-0000dead")
    assert gone.changed_at == 0
    run_folder.prune([gone], keep=1, days=30)


def test_tidy_keeps_what_has_just_ended(tmp_path: Path) -> None:
    for number in range(3):
        RunFolder.create(tmp_path, f"20260101-000000-{number:08x}")
    run_folder.prune(run_folder.existing(tmp_path), keep=1, days=30)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("order", "child"),
    [({"device": "a", "child": "c"}, "c"), ({"device": "b", "child": "c"}, None), ({}, "its own"), (None, None)],
)
def test_a_folder_with_an_order_is_what_a_killed_server_left_on_its_device(
    folder: RunFolder, order: dict[str, object] | None, child: str | None
) -> None:
    if order is not None:
        folder.write(["a secret"], order)
    assert folder.child_id("a") == (folder.path.name if child == "its own" else child)


def test_nobody_else_may_look_into_a_new_state_folder(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        run_folder.check_state_folder(tmp_path / "state")
    finally:
        os.umask(umask)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link that belongs to another user")
@pytest.mark.parametrize("name", [".", "ledger.db", "metrics.db", "device.lock", "runs"])
def test_a_symbolic_link_that_another_user_has_planted_is_not_followed(
    settings: Callable[..., Settings], tmp_path: Path, name: str
) -> None:
    used, target = settings(), tmp_path / "target"
    target.mkdir()
    link = used.state_dir / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target if name in (".", "runs") else target / "file")
    Ledger(used).close()  # one's own may be there
    before = sorted(target.iterdir())
    os.chown(link, 65534, 65534, follow_symlinks=False)
    for use in (lambda: Ledger(used), lambda: run_folder.check_state_folder(used.state_dir)):
        with pytest.raises(SetupError, match="is a symbolic link that another user has made") as caught:
            use()
        assert str(link) in str(caught.value)
        assert "--state-dir" in caught.value.next_step
    assert sorted(target.iterdir()) == before


def test_a_line_that_nests_too_deep_is_shown_as_it_is(folder: RunFolder) -> None:
    line = '{"text": ' + "[" * 100_000 + "\n"
    folder.stdout.write_text(line)
    assert folder.readable_log() == line
