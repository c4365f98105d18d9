from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
from support.demo_homes import make_home

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.errors import SetupError


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "Llama-3.2-1B-Instruct"
    (folder / "original").mkdir(parents=True)
    return folder


def test_the_variable_that_the_checkout_reads_is_the_one_that_is_set(tmp_path: Path, llama: Path) -> None:
    hugging_face = "meta-llama/Llama-3.2-1B-Instruct"
    (llama / "config.json").write_text("{}")
    cases = {
        "2025, LLAMA_DIR": ("2025", {"llama_dir": llama}, ("LLAMA_DIR", str(llama))),
        "2025, HF_MODEL": ("2025", {"hf_model": hugging_face}, ("HF_MODEL", hugging_face)),
        "2025, both": ("2025", {"llama_dir": llama, "hf_model": hugging_face}, ("LLAMA_DIR", str(llama))),
        "2026, HF_MODEL": ("2026", {"hf_model": hugging_face}, ("HF_MODEL", hugging_face)),
        "2026, both": ("2026", {"llama_dir": llama, "hf_model": hugging_face}, ("HF_MODEL", hugging_face)),
        "2026, a folder": ("2026", {"llama_dir": llama}, ("HF_MODEL", str(llama))),
        "2026, its original": ("2026", {"llama_dir": llama / "original"}, ("HF_MODEL", str(llama))),
    }
    homes = {
        generation: make_home(tmp_path / generation, "passes", generation=generation) for generation in ("2025", "2026")
    }
    for name, (generation, flags, expected) in cases.items():
        settings = Settings.load({"demo_home": homes[generation]} | flags, {})
        assert home.model_variable(settings) == expected, name


@pytest.mark.parametrize(
    ("line", "takes_lists"),
    [
        ('if on_host and isinstance(sampling_params["temperature"], List):', True),
        ("if isinstance(sampling_params['temperature'], (list, tuple)):", True),
        ('argmax_on_device = sampling_params["temperature"] == 0', False),
        ('isinstance(prompts, list), sampling_params["temperature"]', False),
    ],
)
def test_a_demo_that_asks_for_a_list_takes_lists(tmp_path: Path, line: str, takes_lists: bool) -> None:
    settings = Settings.load({"demo_home": make_home(tmp_path / "home", "passes")}, {})
    script = home.script(settings)
    assert not home.takes_lists(settings)
    script.write_text(f"{script.read_text()}# {line}\n")
    assert home.takes_lists(settings) is takes_lists
    script.unlink()
    assert not home.takes_lists(settings)


@pytest.mark.parametrize(
    ("line", "takes_seed"),
    [
        ('seed=sampling_params["seed"] if "seed" in sampling_params else None,', True),
        ("seed = sampling_params.get('seed')", True),
        ("torch.manual_seed(0)  # reset_seeds", False),
    ],
)
def test_a_demo_that_reads_a_seed_takes_one(tmp_path: Path, line: str, takes_seed: bool) -> None:
    settings = Settings.load({"demo_home": make_home(tmp_path / "home", "passes")}, {})
    script = home.script(settings)
    assert not home.takes_seed(settings)
    script.write_text(f"{script.read_text()}# {line}\n")
    assert home.takes_seed(settings) is takes_seed


def test_the_cpu_edition_takes_one_value_for_all_users() -> None:
    assert not home.takes_lists(Settings.load({}, {}))


@pytest.mark.parametrize(
    ("generation", "flags", "told"),
    [
        pytest.param("2025", {}, "LLAMA_DIR (--llama-dir) or HF_MODEL", id="2025, nothing set"),
        pytest.param("2026", {}, "Set HF_MODEL", id="2026, nothing set"),
        pytest.param("2026", {"llama_dir": "original"}, "Set HF_MODEL", id="2026, only Meta's format"),
        pytest.param("2025", {"llama_dir": "missing"}, "Set it to the model's folder", id="2025, missing folder"),
    ],
)
def test_a_model_that_cannot_be_used_says_what_to_set(
    tmp_path: Path, llama: Path, generation: str, flags: dict[str, str], told: str
) -> None:
    demo_home = make_home(tmp_path / "home", "passes", generation=generation)
    paths = {name: llama / value for name, value in flags.items()}
    with pytest.raises(SetupError) as caught:
        home.model_variable(Settings.load({"demo_home": demo_home} | paths, {}))
    assert told in caught.value.next_step


@pytest.mark.parametrize("variable", ["llama_dir", "hf_model"])
def test_the_cpu_edition_wants_exactly_one_gguf_file(llama: Path, variable: str) -> None:
    settings = Settings.load({variable: str(llama)}, {})
    with pytest.raises(SetupError, match=r"has no \.gguf files"):
        home.model_variable(settings)
    (llama / "a.gguf").touch()
    assert home.model_variable(settings) == (variable.upper(), str(llama))
    (llama / "b.gguf").touch()
    with pytest.raises(SetupError, match=r"has 2 \.gguf files"):
        home.model_variable(settings)
    one = Settings.load({variable: str(llama / "a.gguf")}, {})
    assert home.model_variable(one) == (variable.upper(), str(llama / "a.gguf"))


def test_the_cpu_edition_knows_no_hugging_face_names() -> None:
    with pytest.raises(SetupError, match="does not exist"):
        home.model_variable(Settings.load({"hf_model": "meta-llama/Llama-3.2-1B-Instruct"}, {}))


def test_the_cpu_edition_without_any_model_says_how_to_get_the_small_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        home.model_variable(Settings.load({"model_dir": tmp_path}, {}))
    assert "demo-api model pull" in caught.value.next_step


def test_a_home_without_the_script_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no .*simple_text_demo\.py"):
        home.script(Settings.load({"demo_home": tmp_path}, {}))


def test_the_interpreter_is_the_homes_own_then_the_set_one_then_ours(tmp_path: Path) -> None:
    assert home.interpreter(Settings.load({"demo_home": tmp_path}, {})) == Path(sys.executable)
    mine = tmp_path / "mine"
    mine.symlink_to(sys.executable)
    assert home.interpreter(Settings.load({"demo_home": tmp_path, "python": mine}, {})) == mine
    own = tmp_path / "python_env/bin/python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert home.interpreter(Settings.load({"demo_home": tmp_path, "python": mine}, {})) == own


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "python_env/bin/python"
    broken.parent.mkdir(parents=True)
    broken.symlink_to(tmp_path / "none")
    with pytest.raises(SetupError, match="cannot be executed"):
        home.interpreter(Settings.load({"demo_home": tmp_path}, {}))
    broken.unlink()
    for python in (tmp_path / "none", tmp_path):
        with pytest.raises(SetupError, match="cannot be executed"):
            home.interpreter(Settings.load({"demo_home": tmp_path, "python": python}, {}))


def _gguf(*pairs: tuple[bytes, int, bytes]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs))
    return head + b"".join(
        struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value for key, kind, value in pairs
    )


_NAME = (b"general.name", 8, struct.pack("<Q", 5) + b"Small")
_WORDS = (b"words", 9, struct.pack("<IQ", 8, 2) + struct.pack("<Q", 1) + b"a" + struct.pack("<Q", 2) + b"bc")
_SCORES = (b"scores", 9, struct.pack("<IQ", 6, 3) + bytes(12))
_FLAG = (b"flag", 7, b"\1")
_LENGTH = (b"llama.context_length", 4, struct.pack("<I", 2048))

GGUFS = {
    "first": (_gguf(_LENGTH), 2048),
    "after every other kind": (_gguf(_NAME, _WORDS, _SCORES, _FLAG, _LENGTH), 2048),
    "nowhere": (_gguf(_NAME), None),
    "cut in the header": (_gguf(_NAME, _LENGTH)[:40], None),
    "another format": (b"PK\3\4" + bytes(40), None),
    "empty": (b"", None),
}


@pytest.mark.parametrize(("content", "length"), GGUFS.values(), ids=GGUFS)
def test_the_context_length_of_a_gguf_file(tmp_path: Path, content: bytes, length: int | None) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    assert home.context_length(str(tmp_path)) == length
    assert home.context_length(str(tmp_path / "model.gguf")) == length


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 131072}, 131072),
        ({"text_config": {"max_position_embeddings": 64}}, 64),
        ({}, None),
        ([], None),
    ],
)
def test_the_context_length_of_a_hugging_face_folder(tmp_path: Path, config: object, length: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert home.context_length(str(tmp_path)) == length


def test_the_context_length_of_the_small_model(model_dir: Path) -> None:
    assert home.context_length(str(model_dir)) == 8192


def test_a_hugging_face_name_has_no_known_context_length() -> None:
    assert home.context_length("meta-llama/Llama-3.2-1B-Instruct") is None


@pytest.mark.parametrize("demo_home", [{}, {"demo_home": "elsewhere"}], ids=["the CPU edition", "another home"])
def test_a_model_of_a_user_who_is_not_there_is_told(demo_home: dict[str, str]) -> None:
    with pytest.raises(SetupError, match="no such user"):
        home.model_variable(Settings.load({"hf_model": "~nobody-of-that-name/model", **demo_home}, {}))
