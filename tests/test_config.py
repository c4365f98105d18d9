from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demo_api.config import CPU_DEMO_HOME, Settings, flag, setting_names, variable
from demo_api.config.values import users_folder
from demo_api.errors import BadRequest


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    environ = {"DEMO_API_PORT": "9001", "DEMO_API_MAX_QUEUE": "5"}
    settings = Settings.load({"port": "9002", "max_queue": None}, environ)
    assert (settings.port, settings.max_queue, settings.host) == (9002, 5, "127.0.0.1")


LISTS = ("keys", "hosts", "cors_origins")


@pytest.mark.parametrize("name", [name for name in setting_names() if name not in LISTS])
@pytest.mark.parametrize("value", ["", " "], ids=["empty", "blank"])
def test_an_empty_variable_is_wrong_use(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=f"^{variable(name)} is empty.$"):
        Settings.load({name: "1"}, {variable(name): value})


def test_an_empty_variable_of_a_list_is_the_list_with_nothing_in_it() -> None:
    settings = Settings.load({}, {variable(name): "" for name in LISTS})
    assert (settings.keys, settings.hosts, settings.cors_origins) == ((), (), ())


def test_the_model_variables_keep_the_names_that_tt_metal_gives_them() -> None:
    settings = Settings.load({}, {"LLAMA_DIR": "/models/a", "HF_MODEL": "meta-llama/Llama-3.2-1B"})
    assert settings.llama_dir == Path("/models/a")
    assert settings.hf_model == "meta-llama/Llama-3.2-1B"


def test_a_quoted_tilde_is_expanded_and_a_relative_path_made_absolute() -> None:
    settings = Settings.load({"llama_dir": "~/model", "state_dir": "state"}, {})
    assert settings.llama_dir == Path.home() / "model"
    assert settings.state_dir == Path.cwd() / "state"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "70000"),
        ("engine", "foo"),
        ("insecure", "perhaps"),
        ("warm", "on"),
        ("max_seq_len", "512"),
        ("max_seq_len", "3000"),
        ("run_rate_limit", "5 per minute"),
        ("max_queue", "-1"),
        ("max_queue", "0"),
        ("max_batch", "33"),
        ("devices", "a; a"),
        ("run_timeout", "0"),
        ("run_timeout", "soon"),
        ("run_timeout", "inf"),
        ("stop_grace", "nan"),
        ("keep_days", "inf"),
        ("state_dir", "~nosuchuser/x"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_the_names_of_variable_and_flag(name: str, value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Settings.load({}, {variable(name): value})
    sentence = str(caught.value)
    assert variable(name) in sentence
    assert flag(name) in sentence
    assert value in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("text", ["", ";", "a; a", "a/b", "a B", "a 1=2", "a =2", 'a "', "x" * 33])
def test_devices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"DEMO_API_DEVICES or --devices is .*: value error, \S"):
        Settings.load({"devices": text}, {})


def _not_known(_name: str) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("of_user", [_not_known, Path("~/.cache").joinpath], ids=["it is an error", "a tilde is left"])
def test_without_a_home_there_is_a_path_that_nobody_can_make(of_user: Callable[[str], Path]) -> None:
    path = users_folder(of_user)
    assert "HOME-is-not-set" in str(path)
    with pytest.raises(NotADirectoryError):
        path.mkdir(parents=True)


def test_the_default_demo_home_is_the_cpu_edition(tmp_path: Path) -> None:
    settings = Settings.load({}, {})
    assert settings.is_cpu_demo
    assert CPU_DEMO_HOME.is_dir()
    (tmp_path / "link").symlink_to(CPU_DEMO_HOME)
    assert Settings.load({"demo_home": tmp_path / "link"}, {}).is_cpu_demo
    assert not Settings.load({"demo_home": "/opt/tt-metal"}, {}).is_cpu_demo


def test_what_the_child_inherits_is_neither_a_setting_nor_shown() -> None:
    settings = Settings.load({}, {"SECRET_TOKEN": "hunter2"})
    assert settings.inherited == {"SECRET_TOKEN": "hunter2"}
    assert "inherited" not in setting_names()
    assert "hunter2" not in repr(settings)
