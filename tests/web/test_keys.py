"""Keys: which are good, how they are named, and what becomes of a file of them that is changed."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from demo_api.config import Settings
from demo_api.config.values import parse_keys
from demo_api.errors import BadRequest, SetupError
from demo_api.web.keys import Keys

KEY = "abcdefghijklmnop-1"
OTHER = "qrstuvwxyz0123456"

BAD = {
    "none": " , ,",
    "15 characters": "a" * 15,
    "a blank within": "abcdefgh ijklmnopq",
    "not ASCII": "abcdefghijklmnopqé",
    "a line end": "abcdefghijklmnopq\nr",
    "257 characters": "a" * 257,
    "a good one and a short one": f"{KEY},secret",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_key_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Settings.load({}, {"DEMO_API_KEYS": text})
    told = f"{caught.value} {caught.value.next_step}"
    assert "DEMO_API_KEYS" in told
    assert "--keys" not in told  # there is no such flag
    for word in text.split(","):
        assert not word.strip() or word not in told


def test_blanks_around_keys_do_not_count() -> None:
    assert parse_keys([f" {KEY} ", "", f"{OTHER}\n"]) == (KEY, OTHER)


def test_a_key_has_the_beginning_of_its_hash_as_its_name() -> None:
    keys = Keys([KEY, OTHER], None)
    assert keys.are_needed
    assert keys.name(OTHER) == hashlib.sha256(OTHER.encode()).hexdigest()[:8]
    for wrong in ("", KEY[:-1], f"{KEY} ", f"{KEY},{OTHER}", "\udce9", "é" * 16):
        assert keys.name(wrong) is None
    assert KEY not in str(vars(keys))


def test_settings_do_not_show_keys() -> None:
    settings = Settings.load({}, {"DEMO_API_KEYS": KEY, "DEMO_API_KEY": OTHER})
    assert settings.keys == (KEY,)
    for text in (repr(settings), str(settings)):
        assert KEY not in text
        assert OTHER not in text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    write(path, f"# of the team\n{KEY}\n\n  # a comment\n{OTHER}\n")
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_a_file_has_a_key_on_each_line(file: Path) -> None:
    keys = Keys(["0123456789abcdefgh"], file)
    assert keys.name(KEY)
    assert keys.name(OTHER)
    assert keys.name("0123456789abcdefgh")
    assert keys.name("# of the team") is None


UNUSABLE = {
    "readable by the group": (f"{KEY}\n", 0o640, "read by other users"),
    "readable by everybody": (f"{KEY}\n", 0o604, "read by other users"),
    "empty": ("# nothing\n", 0o600, "no key"),
    "a short key": (f"{KEY}\nshort\n", 0o600, "key 2"),
}


@pytest.mark.parametrize(("text", "mode", "told"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_is_told_and_a_change_to_such_a_one_keeps_the_old_keys(
    file: Path, caplog: pytest.LogCaptureFixture, text: str, mode: int, told: str
) -> None:
    keys = Keys((), file)
    write(file, text, mode)
    assert keys.name(OTHER)  # though the file has not got it any more, or must not be believed
    assert told in caplog.text
    assert KEY not in caplog.text
    with pytest.raises(SetupError, match=told) as caught:
        Keys((), file)
    assert "short" not in str(caught.value).removeprefix(str(file))
    assert caught.value.next_step


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff" * 20) and path.chmod(0o600), None])
def test_what_is_no_file_of_text_is_told(tmp_path: Path, make: object) -> None:
    path = tmp_path / "keys"
    if callable(make):
        make(path)
        path.chmod(0o700)
    with pytest.raises(SetupError, match="cannot be used"):
        Keys((), path)


def test_a_file_that_others_may_read_from_now_on_is_noticed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys((), file)
    file.chmod(0o644)  # which leaves its time and its size as they were
    assert keys.name(KEY)
    assert "read by other users" in caplog.text


def test_a_file_that_was_changed_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys((), file)
    with caplog.at_level(logging.INFO):
        write(file, f"{OTHER}\n")
        assert keys.name(KEY) is None
        assert keys.name(OTHER)
    assert "1 keys were read" in caplog.text
    file.unlink()
    assert keys.name(OTHER)
    assert keys.are_needed
