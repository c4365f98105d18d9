"""The CPU edition of the demo: which prompts it reads, and what it refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from support.cpu_demo import HOME, SCRIPT, Demo

# ---- which prompts


@pytest.mark.parametrize(
    ("value", "prompt"),
    [("'?'", "?"), ("['What is 2+2?']", "What is 2+2?")],
    ids=["one_character", "list_of_one"],
)
def test_a_literal_prompt(demo: Demo, value: str, prompt: str) -> None:
    (demo.folder / "literal.py").write_text(
        f"def pytest_configure(config):\n    config.option.input_prompts = {value}\n"
    )
    run = demo.run([], "-p", "literal", "--batch_size", 2, "--max_generated_tokens", 1)
    run.prompts = [prompt, prompt]
    assert run.exit_code == 0
    assert len(run.answers) == 2


def test_fewer_prompts_than_users_repeat(demo: Demo) -> None:
    run = demo.run(["Say hi.", "What is 2+2?"], "--batch_size", 4, "--max_generated_tokens", 5)
    run.prompts = ["Say hi.", "What is 2+2?"] * 2
    assert len(run.answers) == 4
    assert run.answers[:2] == run.answers[2:]
    assert any("Repeating the prompts to match the batch size." in message for message in run.messages)


def test_more_prompts_than_users_are_ignored(demo: Demo) -> None:
    run = demo.run(["Say hi.", "What is 2+2?", "Never answered."], "--batch_size", 2, "--max_generated_tokens", 1)
    assert run.exit_code == 0
    assert sum(message.startswith("\n==REPEAT") for message in run.messages) == 2


def test_repeated_batches_rotate_the_prompts(demo: Demo) -> None:
    run = demo.run(["Say hi.", "What is 2+2?"], "--batch_size", 2, "--repeat_batches", 2, "--max_generated_tokens", 5)
    records = [message.split("\n") for message in run.messages if message.startswith("\n==REPEAT")]
    assert [(lines[1], lines[3]) for lines in records] == [
        ("==REPEAT BATCH 0", "Say hi. "),
        ("==REPEAT BATCH 0", "What is 2+2? "),
        ("==REPEAT BATCH 1", "What is 2+2? "),
        ("==REPEAT BATCH 1", "Say hi. "),
    ]
    assert records[0][5:] == records[3][5:]
    assert run.messages.count("=== Performance metrics ===") == 1


def test_the_sample_prompts_are_enough_for_every_batch() -> None:
    for name, users in (("batch_1.json", 1), ("batch_32.json", 32)):
        prompts = json.loads((HOME / SCRIPT.parent / "sample_prompts" / name).read_text())
        assert len({entry["prompt"] for entry in prompts}) == users


# ---- how it refuses


def gguf(architecture: str) -> bytes:
    """The smallest header that names an architecture."""
    key, value = b"general.architecture", architecture.encode()
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (gguf("qwen2"), "is a model of the architecture qwen2"),
        (gguf("llama")[:-3], "cannot be read as a GGUF file (it ends in the middle of its header)"),
        (b"PK\3\4" + bytes(100), "cannot be read as a GGUF file (it does not start as GGUF version 2 or 3 does)"),
        (b"", "cannot be read as a GGUF file (it ends in the middle of its header)"),
        ("half", "could not be loaded"),
    ],
    ids=["other_architecture", "cut_in_the_header", "not_gguf", "empty", "cut_in_the_weights"],
)
def test_refuses_a_bad_model_file(demo: Demo, model_dir: Path, file: bytes | str, reason: str) -> None:
    if file == "half":
        with open(next(model_dir.glob("*.gguf")), "rb") as whole:
            file = whole.read(10_000_000)
    bad = demo.folder / "bad.gguf"
    bad.write_bytes(file)
    run = demo.run(["Hello"], LLAMA_DIR=str(bad))
    assert run.exit_code == 1
    assert f"Error: {bad} {reason}" in run.stdout
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "Checkpoint directory {folder} does not exist"),
        ([], "There is no GGUF file in {folder}"),
        (["a.gguf", "b.gguf"], "There are 2 GGUF files in {folder}"),
    ],
    ids=["missing", "empty", "two_files"],
)
def test_refuses_a_bad_model_directory(demo: Demo, files: list[str] | None, reason: str) -> None:
    folder = demo.folder / "models"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    run = demo.run(["Hello"], LLAMA_DIR=str(folder))
    assert run.exit_code == 1
    assert f"AssertionError: {reason.format(folder=folder)}" in run.stdout


@pytest.mark.parametrize("how", ["LLAMA_DIR", "HF_MODEL", "a_file", "home"])
def test_ways_to_name_the_model(demo: Demo, model_dir: Path, how: str) -> None:
    ways = {
        "LLAMA_DIR": {},
        "HF_MODEL": {"LLAMA_DIR": None, "HF_MODEL": str(model_dir)},
        "a_file": {"LLAMA_DIR": str(next(model_dir.glob("*.gguf")))},
        "home": {"LLAMA_DIR": f"~/{model_dir.name}", "HOME": str(model_dir.parent)},
    }
    run = demo.run(["Say hi."], "--max_generated_tokens", 1, **ways[how])
    assert run.exit_code == 0
    assert f"Checkpoint directory: {model_dir}" in run.messages


@pytest.mark.parametrize(
    ("options", "env", "exit_code", "reason"),
    [
        ("", {"LLAMA_DIR": None}, 1, "AssertionError: Please set HF_MODEL"),
        ("", {"HF_MODEL": "/x"}, 1, "AssertionError: Only one of LLAMA_DIR or HF_MODEL should be set"),
        ("--batch_size 3", {}, 1, "ValueError: Batch size 3 not supported"),
        ("--batch_size 64", {}, 1, "ValueError: Batch size 64 not supported"),
        (
            "--max_seq_len 200 --max_generated_tokens 169",
            {},
            1,
            "AssertionError: Prompt prefill tokens (32) + maximum number of decoded iterations (169) needs to be <= "
            "than max_seq_len (200)",
        ),
        ("--sampling_params {\"temprature\":1}", {}, 1, "AssertionError: Unknown sampling parameters: temprature;"),
        ("--sampling_params {\"temperature\":\"1\"}", {}, 1, "AssertionError: temperature has to be a number: '1'"),
        ("--input_prompts /no/such/file.json", {}, 1, "FileNotFoundError: "),
        ("--data_parallel 2", {}, 0, "Invalid number of DP groups: 2, for 1 devices"),
        ("--max_seq_len 100000", {}, 0, "Max seq len 100000 not supported by model"),
        ("", {"CI": "true"}, 0, "CI only runs the CI-only tests"),
        ("", {"TT_GH_CI_INFRA": "1"}, 0, "CI only runs the CI-only tests"),
    ],
    ids=[
        "no_model", "both_models", "batch_3", "batch_64", "prompt_too_long", "unknown_sampling", "wrong_sampling",
        "no_file", "data_parallel", "beyond_the_model", "ci", "ci_infra",
    ],
)  # fmt: skip
def test_refuses(demo: Demo, options: str, env: dict, exit_code: int, reason: str) -> None:
    run = demo.run(["Hello you"], *options.split(), **env)
    assert run.exit_code == exit_code
    assert reason in run.stdout
    assert ("1 failed" if exit_code else "1 skipped") in run.stdout
    assert run.iterations == 0


def test_the_longest_prompt_that_fits_is_answered_up_to_the_limit(demo: Demo) -> None:
    run = demo.run(["Hello you"], "--max_seq_len", 256, "--max_generated_tokens", 224, "--stop_at_eos", 0)
    assert "Encoded prompt lengths:32" in run.messages
    assert (run.exit_code, run.iterations) == (0, 224)
    said = [message for message in run.messages if message.startswith("[User 0]")]
    assert said[-1] != said[-2], "the last iteration still had a token"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"text": "no prompt"}], "KeyError: 'prompt'"),
        ({"prompt": "no list"}, "AssertionError: The prompts have to be a list"),
        ([], "AssertionError: There are no prompts"),
        ([{"prompt": "x", "context": "http://localhost/"}], "AssertionError: The CPU edition downloads no context"),
    ],
    ids=["no_key", "no_list", "no_prompts", "context"],
)
def test_refuses_prompts(demo: Demo, content: object, reason: str) -> None:
    (demo.folder / "given.json").write_text(json.dumps(content))
    run = demo.run([], "--input_prompts", demo.folder / "given.json")
    assert run.exit_code == 1
    assert reason in run.stdout


def test_sampling_params_that_are_not_json_are_a_usage_error(demo: Demo) -> None:
    child = demo.spawn(["Hello"], "--sampling_params", "{temperature: 1}")
    assert child.wait(timeout=30) == 4
    assert "--sampling_params: not JSON" in (demo.folder / "stderr").read_text()


def test_options_without_effect_are_named(demo: Demo) -> None:
    run = demo.run(["Say hi."], "--max_generated_tokens", 1, "--paged_attention", 1, "--mode", "full")
    named = [record["message"] for record in run.records if record["level"]["name"] == "WARNING"]
    assert named == ["--paged_attention has no effect on a CPU", "--mode has no effect on a CPU"]
