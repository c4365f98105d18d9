"""tt-metal's model as its process has it, with the stand-in checkouts in ``tests/standins``, not on a device."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import GENERATIONS, SITE, make_checkout

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.demo.command import TOP_K
from demo_api.direct.host.demo_api_host.context import MAX_SEQ_LEN
from demo_api.direct.host.demo_api_host.protocol import Completion, Failed, ModelError, OnText, Question, Refused
from demo_api.direct.host.demo_api_host.tt_metal import TtMetal
from demo_api.direct.hosted_model import question_message
from demo_api.direct.run import DirectRun
from demo_api.messages import Question as FullQuestion
from demo_api.messages import Request, Turn
from demo_api.web.parse import check_request

NO_CHIPS = (
    'raise RuntimeError("TT_FATAL @ cluster.cpp:1: x\\ninfo:\\nNo chips detected in the cluster\\nbacktrace:\\n 1")'
)


def _ours(name: str) -> bool:
    return name.partition(".")[0] in ("torch", "ttnn", "tiny_model", "models")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkout changes the path, the modules and the environment of its process: here for one test only."""
    assert not any(map(_ours, sys.modules)), "a real torch would be used"
    monkeypatch.setattr(sys, "path", [str(SITE), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    for name in filter(_ours, list(sys.modules)):
        del sys.modules[name]


@pytest.fixture
def load(tt_settings: Callable[..., Settings]) -> Iterator[Callable[..., TtMetal]]:
    """Loads models, and closes them when the test ends."""
    loaded = []

    def start(generation: str, **flags: object) -> TtMetal:
        model = in_this_process(tt_settings(generation, **flags))
        loaded.append(model)
        model.load()
        tiny().calls.clear()
        return model

    yield start
    for model in loaded:
        model.close()
    if loaded:
        assert (ttnn().opened, ttnn().closed) == (1, 1)


def in_this_process(settings: Settings) -> TtMetal:
    """The model, where the path and the environment are as in its own process."""
    sys.path.insert(0, str(settings.demo_home))
    variable, value = home.model_variable(settings)
    os.environ[variable] = value
    return TtMetal(demo_home=str(settings.demo_home), max_seq_len=settings.max_seq_len, top_k=TOP_K)


def tiny() -> Any:
    return importlib.import_module("tiny_model")


def ttnn() -> Any:
    return importlib.import_module("ttnn")


def request(prompt: str, **fields: object) -> Request:
    return check_request({"prompt": prompt} | fields)


def question(prompt: str, **fields: object) -> Question:
    return asked(FullQuestion.of(request(prompt, **fields)))


def asked(full: FullQuestion) -> Question:
    return Question(**question_message(full))


def ask(model: TtMetal, prompt: str, **fields: object) -> tuple[Completion, list[str]]:
    """An answer, and what was said on the way."""
    said: list[str] = []
    model.accept(question(prompt, **fields))
    return model.complete(question(prompt, **fields), lambda text, _: said.append(text) is not None), said


class AsAsked:
    """The model for those who ask full questions."""

    device = None

    def __init__(self, model: TtMetal) -> None:
        self.name = model.name
        self._model = model

    def complete(self, full: FullQuestion, on_text: OnText) -> Completion:
        return self._model.complete(asked(full), on_text)


def steps(name: str) -> list[dict[str, Any]]:
    return [given for step, given in tiny().calls if step == name]


def everyone(name: str = "generation") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, GENERATIONS)


@everyone()
def test_greedy_answers_are_chosen_by_the_device(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "abc", temperature=0)
    assert completion.response == "".join(said) == "cba"
    assert (completion.finish_reason, completion.tokens_generated, completion.prompt_tokens) == ("stop", 3, 7)
    assert len(steps("sample_host")) == 1, "only the first token comes from the prompt's logits"
    sampling = [given["sampling_params"] for given in steps("decode")]
    assert len(sampling) == 3
    if generation == "2025":
        assert all((one.temperature, one.top_k, one.top_p) == (0.0, -1, 1.0) for one in sampling)
    else:
        assert len({id(one.temperature) for one in sampling}) == 3, "2026 overwrites the lists that it is given"


@everyone()
def test_at_a_temperature_every_token_is_sampled_on_the_host_the_first_too(
    load: Callable[..., TtMetal], generation: str
) -> None:
    completion, said = ask(load(generation), "abc", temperature=0.8, top_p=0.7)
    assert completion.response == "".join(said) == "CBA"
    assert [given["sampling_params"] for given in steps("decode")] == [None] * 3
    assert steps("sample_host") == [{"temperature": 0.8, "top_p": 0.7}] * 4


@everyone()
def test_without_a_temperature_it_answers_greedily(load: Callable[..., TtMetal], generation: str) -> None:
    assert ask(load(generation), "abc")[0].response == "cba"


@pytest.mark.parametrize(
    "unable",
    [
        pytest.param({"supports_sampling": False}, id="a device that cannot sample"),
        pytest.param({"base_model_name": "Mistral-7B", "supports_sampling": True}, id="a model that must not"),
    ],
)
@pytest.mark.parametrize("generation", GENERATIONS[1:])
def test_where_the_device_does_not_sample_the_host_takes_the_most_likely_token(
    load: Callable[..., TtMetal], monkeypatch: pytest.MonkeyPatch, generation: str, unable: dict[str, object]
) -> None:
    for name, value in unable.items():
        monkeypatch.setattr(tiny(), name, value)
    assert ask(load(generation), "abc", temperature=0)[0].response == "cba"
    assert [given["sampling_params"] for given in steps("decode")] == [None] * 3
    assert [given["temperature"] for given in steps("sample_host")] == [0.0] * 4


@everyone()
def test_an_answer_whose_first_token_is_its_end_is_empty(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "silent")
    assert (completion.response, said, completion.tokens_generated, completion.finish_reason) == ("", [], 0, "stop")
    assert completion.decode_tokens_per_second is None
    assert steps("decode") == []


@pytest.mark.parametrize(
    ("max_tokens", "response", "finish", "decodes"),
    [(1, "e", "length", 0), (2, "ed", "length", 1), (5, "edcba", "length", 4), (6, "edcba", "stop", 5)],
)
@everyone()
def test_an_answer_has_max_tokens_at_most(
    load: Callable[..., TtMetal], generation: str, max_tokens: int, response: str, finish: str, decodes: int
) -> None:
    completion, _ = ask(load(generation), "abcde", max_tokens=max_tokens)
    assert (completion.response, completion.finish_reason) == (response, finish)
    assert completion.tokens_generated == len(response)
    assert len(steps("decode")) == decodes, "nothing is computed that nobody gets"


@everyone()
def test_an_answer_ends_with_the_models_context(load: Callable[..., TtMetal], generation: str) -> None:
    completion, _ = ask(load(generation), "endless", max_tokens=MAX_SEQ_LEN)
    assert completion.prompt_tokens == 11
    assert completion.tokens_generated == MAX_SEQ_LEN - 11
    assert completion.finish_reason == "length"
    assert "?" not in completion.response


@everyone()
def test_a_prompt_that_leaves_room_for_one_token_is_read_in_full(load: Callable[..., TtMetal], generation: str) -> None:
    completion, _ = ask(load(generation), "x" * (MAX_SEQ_LEN - 6) + "y", max_tokens=MAX_SEQ_LEN)
    assert (completion.response, completion.prompt_tokens) == ("y", MAX_SEQ_LEN - 1)
    assert steps("prefill")[0]["tokens"][:2] == [256, 257], "its beginning is there"


@everyone()
def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(load: Callable[..., TtMetal], generation: str) -> None:
    model = load(generation)
    with pytest.raises(Refused, match=f"it has {MAX_SEQ_LEN} tokens, and the model takes {MAX_SEQ_LEN}") as caught:
        ask(model, "x" * (MAX_SEQ_LEN - 4))
    assert caught.value.field == "prompt"
    assert steps("prefill") == []


@everyone()
def test_a_model_with_a_shorter_context_keeps_to_it(
    load: Callable[..., TtMetal], monkeypatch: pytest.MonkeyPatch, generation: str
) -> None:
    monkeypatch.setattr(tiny(), "context_length", 512)
    model = load(generation)
    completion, _ = ask(model, "endless", max_tokens=2048)
    assert completion.tokens_generated == 512 - 11
    assert steps("prefill")[0]["tokens"][:2] == [256, 257]
    with pytest.raises(Refused, match="the model takes 512"):
        ask(model, "x" * 600)


@everyone()
def test_the_context_is_a_setting(
    load: Callable[..., TtMetal], monkeypatch: pytest.MonkeyPatch, generation: str
) -> None:
    monkeypatch.setattr(tiny().ModelArgs, "max_prefill_chunk_size", 2048)
    model = load(generation, max_seq_len=4096)
    assert model.context == 4096
    assert ask(model, "endless " + "x" * 1990, max_tokens=100)[0].tokens_generated == 100  # beyond the default of 2048
    with pytest.raises(Refused, match="it has 2104 tokens, and this device reads 2048 at once"):
        ask(model, "x" * 2100)
    with pytest.raises(Refused, match="it has 4204 tokens, and the model takes 4096"):
        ask(model, "x" * 4200)


def test_a_longer_context_than_the_models_is_refused_and_the_device_closed(
    tt_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny(), "context_length", 2048)
    model = in_this_process(tt_settings("2025", max_seq_len=4096))
    with pytest.raises(Refused, match="max-seq-len is 4096, and the model was made for 2048 tokens"):
        model.load()
    assert (ttnn().opened, ttnn().closed) == (1, 1)


@everyone()
def test_a_character_is_said_when_all_its_tokens_are_there(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "say né 😀!")
    assert said == ["n", "", "é", " ", "", "", "", "😀", "!"]
    assert completion.response == "né 😀!"
    assert completion.tokens_generated == len("né 😀!".encode())


@everyone()
def test_half_a_character_at_the_end_is_said_as_what_it_is(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "say n😀", max_tokens=3)
    assert said == ["n", "", "", "\ufffd"]
    assert completion.response == "n\ufffd"


@everyone()
def test_the_response_is_stripped_as_the_demo_strips_it(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "say \n hm \n ")
    assert (completion.response, "".join(said)) == ("hm", "\n hm \n ")


@everyone()
def test_what_was_said_is_never_taken_back(load: Callable[..., TtMetal], generation: str) -> None:
    completion, said = ask(load(generation), "say I did n't .")
    assert "".join(said) == "I did n't ."
    assert completion.response == ("I did n't ." if generation == "2025" else "I didn't."), "as the demo decodes it"


@everyone()
def test_raw_text_is_continued_without_the_template(load: Callable[..., TtMetal], generation: str) -> None:
    model = load(generation)
    said: list[str] = []
    completion = model.complete(
        asked(FullQuestion(request("Once", max_tokens=20), [])), lambda text, _: said.append(text) is not None
    )
    assert completion.response == "".join(said) == " and so on", "not stripped"
    assert (completion.prompt_tokens, completion.finish_reason) == (5, "stop")
    assert steps("prefill")[0]["tokens"] == [256, *b"Once"]


@everyone()
def test_an_answer_that_is_not_wanted_ends_within_one_token(load: Callable[..., TtMetal], generation: str) -> None:
    model = load(generation)
    said: list[str] = []

    counted: list[int] = []

    def hear(text: str, tokens: int) -> bool:
        said.append(text)
        counted.append(tokens)
        return len(said) == 3

    completion = model.complete(question("endless", max_tokens=2000), hear)
    assert (said, completion.finish_reason, completion.tokens_generated) == (["a", "b", "a"], "cancelled", 3)
    assert counted == [1, 2, 3]
    assert len(steps("decode")) == 2
    assert ask(model, "abc")[0].response == "cba"


@pytest.mark.parametrize(
    ("prompt", "stop", "response", "decodes"),
    [
        pytest.param("abcdef", ["c"], "fed", 3, id="a token"),
        pytest.param("abcdef", ["a!", "dc"], "fe", 3, id="across tokens"),
        pytest.param("say n😀!", ["😀"], "n", 4, id="a character of several tokens"),
        pytest.param("say one . two", [" ."], "one", 4, id="what the tokenizer tidies up"),
    ],
)
@everyone()
def test_an_answer_ends_before_a_stop_sequence(
    load: Callable[..., TtMetal], generation: str, prompt: str, stop: list[str], response: str, decodes: int
) -> None:
    run = DirectRun(FullQuestion(request(prompt), [Turn("user", prompt)], stop), timeout_s=60)
    run.answer_with(AsAsked(load(generation)))  # type: ignore[arg-type]
    result = run.run().result
    assert result is not None
    assert result.answer is not None
    assert (result.answer.response, result.finish_reason) == (response, "stop")
    assert result.answer.tokens_generated == decodes + 1
    assert len(steps("decode")) == decodes, "the device is not asked for more"


@everyone()
def test_half_a_character_that_is_not_wanted_is_not_said(load: Callable[..., TtMetal], generation: str) -> None:
    said: list[str] = []

    def hear(text: str, tokens: int) -> bool:
        said.append(text)
        return len(said) == 3

    load(generation).complete(question("say n😀"), hear)
    assert said == ["n", "", ""]


@everyone()
def test_an_earlier_request_leaves_nothing_behind(load: Callable[..., TtMetal], generation: str) -> None:
    model = load(generation)
    for prompt, response in [("x" * 500, "x" * 500), ("ab", "ba"), ("silent", ""), ("say hello", "hello")]:
        assert ask(model, prompt, max_tokens=600)[0].response == response


@everyone()
def test_the_figures_are_of_this_answer(load: Callable[..., TtMetal], generation: str) -> None:
    completion, _ = ask(load(generation), "abcdef")
    assert completion.ttft_ms is not None
    assert completion.ttft_ms > 0
    assert completion.prefill_seconds is not None
    assert completion.prefill_seconds * 1000 <= completion.ttft_ms + 1
    assert completion.decode_seconds is not None
    assert completion.decode_tokens_per_second is not None
    assert completion.decode_tokens_per_second > 6 / (completion.decode_seconds + 0.001)


@everyone()
def test_the_model_is_loaded_as_the_lessons_server_does(tt_settings: Callable[..., Settings], generation: str) -> None:
    model = in_this_process(tt_settings(generation))
    assert (model.slots, model.device) == (1, None)
    model.load()
    assert (model.name, model.device) == ("Tiny-1B-Instruct", "N150")
    assert steps("open_mesh_device") == [{"trace_region_size": 30_000_000, "num_command_queues": 1}]
    performance = ("performance", 2, "Tiny-1B-Instruct")
    assert steps("create_tt_model") == [{"optimizations": performance, "max_seq_len": 2048, "dtype": "bfloat8_b"}]
    assert len(steps("prefill")) == len(steps("decode")) == 1, "kernels are compiled before anybody waits"
    model.close()
    model.close()
    assert (ttnn().opened, ttnn().closed) == (1, 1)


FAULTS = {
    "open_mesh_device": ("The device cannot be opened", "tt-smi", 0),
    "create_tt_model": ("The model cannot be loaded", "the demo runs with this model", 1),
    "Generator": ("The model cannot be loaded", "the demo runs with this model", 1),
    "encode_prompt": ("does not answer: The model could not read the prompt", "the demo runs with this model", 1),
    "prefill": ("does not answer: The model could not read the prompt", "the demo runs with this model", 1),
    "decode": ("does not answer: The model could not answer", "the demo runs with this model", 1),
}


@pytest.mark.parametrize("step", FAULTS)
@everyone()
def test_whatever_fails_while_loading_closes_the_device(
    tt_settings: Callable[..., Settings], generation: str, step: str
) -> None:
    sentence, next_step, opened = FAULTS[step]
    model = in_this_process(tt_settings(generation))
    tiny().faults[step] = RuntimeError("TT_FATAL @ a.cpp:1: b\ninfo:\nOut of memory\nbacktrace:\n --- c")
    with pytest.raises(ModelError, match=f"{sentence}.*TT_FATAL @ a.cpp:1: b info: Out of memory") as caught:
        model.load()
    assert "backtrace" not in str(caught.value)
    assert next_step in (caught.value.next_step or "")
    assert (ttnn().opened, ttnn().closed) == (opened, opened)
    model.close()
    assert ttnn().closed == opened
    model.load()
    assert ask(model, "abc")[0].response == "cba", "the device can be taken again"
    model.close()


@pytest.mark.parametrize("step", ["open_mesh_device", "create_tt_model", "decode"])
def test_an_interruption_while_loading_closes_the_device(tt_settings: Callable[..., Settings], step: str) -> None:
    settings = tt_settings("2026")
    tiny().faults[step] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        in_this_process(settings).load()
    assert ttnn().opened == ttnn().closed == (0 if step == "open_mesh_device" else 1)


@pytest.mark.parametrize("step", ["encode_prompt", "prefill", "sample_host", "decode"])
@everyone()
def test_a_failure_is_told_and_the_next_request_is_answered(
    load: Callable[..., TtMetal], generation: str, step: str
) -> None:
    model = load(generation)
    tiny().faults[step] = RuntimeError("TT_THROW: hang")
    with pytest.raises(Failed, match="TT_THROW: hang") as caught:
        ask(model, "abc")
    assert "tt-smi -r" in (caught.value.next_step or "")
    assert ttnn().closed == 0
    assert ask(model, "abc")[0].response == "cba"


def test_a_listener_that_fails_is_not_taken_for_the_model(load: Callable[..., TtMetal]) -> None:
    def hear(text: str, tokens: int) -> bool:
        raise OSError("the client is gone")

    model = load("2026")
    with pytest.raises(OSError, match="the client is gone"):
        model.complete(question("abc"), hear)
    assert ask(model, "abc")[0].response == "cba"


@everyone()
def test_nothing_is_computed_on_a_closed_device(load: Callable[..., TtMetal], generation: str) -> None:
    model = load(generation)
    model.close()
    with pytest.raises(Failed, match="not in memory"):
        ask(model, "abc")
    assert tiny().calls == [("close_mesh_device", {})]


def test_a_device_that_does_not_close_is_logged(
    load: Callable[..., TtMetal], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = load("2026")
    tiny().faults["close_mesh_device"] = RuntimeError("TT_FATAL")
    assert not model.close()
    assert "was not closed; reset it with `tt-smi -r`" in caplog.text
    ttnn().closed += 1


def _refusal(model: TtMetal, full: FullQuestion) -> Refused:
    with pytest.raises(Refused) as caught:
        model.accept(asked(full))
    return caught.value


REFUSED = {
    "a seed": (FullQuestion.of(request("abc", seed=1)), "seed"),
    "a system turn": (FullQuestion(request("abc"), [Turn("system", "Be brief."), Turn("user", "abc")]), "messages"),
    "a system turn alone": (FullQuestion(request("abc"), [Turn("system", "abc")]), "messages"),
    "two turns of the user": (FullQuestion(request("abc"), [Turn("user", "a"), Turn("user", "abc")]), "messages"),
    "several turns": (
        FullQuestion(request("abc"), [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "abc")]),
        "messages",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_checkout_cannot_do_is_refused(load: Callable[..., TtMetal], case: str) -> None:
    full, field = REFUSED[case]
    assert _refusal(load("2026"), full).field == field


def test_raw_text_is_accepted(load: Callable[..., TtMetal]) -> None:
    load("2025").accept(asked(FullQuestion(request("abc"), [])))


def _package(path: Path, name: str, content: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(content)


IMPORTS = {
    "no torch": ("torch.py", "raise ModuleNotFoundError('No module named torch')", "DEMO_API_PYTHON"),
    "a ttnn of another Python": ("ttnn.py", "raise ImportError('undefined symbol')", "DEMO_API_PYTHON"),
    "a ttnn that finds no chip": ("ttnn.py", NO_CHIPS, "tt-smi -s"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_what_cannot_be_imported_says_how_to_go_on(
    tt_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name, content, next_step = IMPORTS[case]
    _package(tmp_path / "site", name, content)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    with pytest.raises(ModelError, match="tt-metal cannot be imported here") as caught:
        in_this_process(tt_settings("2026")).load()
    assert next_step in (caught.value.next_step or "")


def test_no_chips_when_the_device_is_opened_is_told(tt_settings: Callable[..., Settings]) -> None:
    tiny().faults["open_mesh_device"] = RuntimeError("TT_FATAL: No chips detected in the cluster")
    with pytest.raises(ModelError, match="No chips detected in the cluster") as caught:
        in_this_process(tt_settings("2025")).load()
    assert "tt-smi -s" in caught.value.next_step


HIDES = {"a package": "models/__init__.py", "a module": "models.py"}


@pytest.mark.parametrize("case", HIDES)
def test_a_package_that_hides_the_checkouts_models_is_told(
    tt_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    hiding = tmp_path / "packages" / HIDES[case]
    _package(hiding.parent, hiding.name, "")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "packages")])  # last, and it wins nevertheless
    with pytest.raises(ModelError, match="Another package named `models` hides tt-metal's") as caught:
        in_this_process(tt_settings("2026")).load()
    assert str(tmp_path / "packages/models") in str(caught.value)
    assert "pip uninstall llama-models" in caught.value.next_step
    assert ttnn().opened == 0


def test_another_checkout_on_the_path_is_not_the_one_that_is_used(
    tt_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkout(tmp_path / "other", "2025")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), *sys.path])
    model = in_this_process(tt_settings("2026"))
    model.load()
    assert Path(sys.modules["models.tt_transformers.tt.common"].__file__ or "").is_relative_to(tmp_path / "checkout")
    model.close()


def test_a_home_without_models_is_told(settings: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no folder `models`") as caught:
        in_this_process(settings(demo_home=tmp_path, hf_model="meta-llama/Tiny-1B-Instruct")).load()
    assert "--demo-home" in (caught.value.next_step or "")


def test_a_missing_module_of_the_checkout_is_told(tt_settings: Callable[..., Settings]) -> None:
    settings = tt_settings("2026")
    (settings.demo_home / "models/tt_transformers/tt/generator.py").unlink()
    with pytest.raises(ModelError, match=r"No module named 'models\.tt_transformers\.tt\.generator'"):
        in_this_process(settings).load()
