"""The CPU edition of the demo: what is selected, said and answered."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cpu_demo import DEMO, HOME, SCRIPT, Demo, pytest_in

EIGHT = [
    "Name three primary colors.",
    "What is 2+2?",
    "Say hi.",
    "Write a poem about rain.",
    "Repeat exactly: 😀🎉🚀 你好",
    "List five animals.",
    "How do I boil an egg?",
    "What is water made of?",
]
PARTY = "Repeat exactly: 😀🎉🚀 你好"  # answered with emoji of three tokens each, from the first token on
ENDED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello! How can I help you today?"


# ---- what is selected and where it runs


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("performance-batch-1", ["performance-batch-1"]),
        ("performance-batch-32", ["performance-batch-32"]),
        ("accuracy-batch-1", ["accuracy-batch-1"]),
        ("accuracy-batch-32", ["accuracy-batch-32"]),
        ("batch-1", ["performance-batch-1", "accuracy-batch-1"]),
        ("batch-32", ["performance-batch-32", "accuracy-batch-32"]),
        ("batch-2", []),
    ],
)
def test_k_selects(expression: str, ids: list[str]) -> None:
    done = pytest_in(HOME, SCRIPT, "--collect-only", "-q", "-q", "-q", "-k", expression)
    found = re.findall(r"test_demo_text\[(.*)\]", done.stdout)
    assert sorted(found) == sorted(ids)


def test_every_option_of_the_demo_is_accepted() -> None:
    names = (
        "input_prompts instruct repeat_batches max_seq_len batch_size max_generated_tokens data_parallel "
        "paged_attention stop_at_eos optimizations decoder_config_file token_accuracy stress_test enable_trace "
        "num_layers mode"
    )
    options = [f"--{name}=1" for name in names.split(" ")] + ["--page_params={}", "--sampling_params={}"]
    done = pytest_in(HOME, SCRIPT, "--collect-only", *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["in_the_root", "elsewhere", "elsewhere_with_pythonpath"])
def test_runs_from_anywhere_and_writes_nowhere(place: str, tmp_path: Path, model_dir: Path) -> None:
    before = sorted(HOME.rglob("*"))
    folder, script = (HOME, SCRIPT) if place == "in_the_root" else (tmp_path, HOME / SCRIPT)
    path = {"PYTHONPATH": str(HOME)} if place.endswith("pythonpath") else {}
    options = ("--max_generated_tokens", 1, "-k", "performance-batch-1")
    done = pytest_in(folder, script, *options, LLAMA_DIR=str(model_dir), **path)
    assert done.returncode == 0, done.stdout
    assert f"{DEMO}:test_demo_text:" in done.stderr, "loggers have the names that they have in tt-metal"
    assert "Name three primary colors. \n==USER 0 - OUTPUT\n" in done.stderr, "the sample prompts are found"
    assert sorted(HOME.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_runs_as_part_of_a_held_session(demo: Demo) -> None:
    """One pytest session can run the test again with other options."""
    run = demo.run_one_by_one(["Say hi.", "What is 2+2?"], "--max_generated_tokens", 3)
    records = [message for message in run.messages if message.startswith("\n==REPEAT")]
    assert run.exit_code == 0
    assert run.messages.count("multidevice with 1 devices is created") == 2
    assert [record.split("\n")[3] for record in records] == ["Say hi. ", "What is 2+2? "]


# ---- what is said


def test_messages_come_in_the_order_of_the_demo(demo: Demo, model_dir: Path) -> None:
    run = demo.run(["Name three primary colors."], "--max_generated_tokens", 2)
    said = [(record["level"]["name"], record["name"], record["message"]) for record in run.records]
    file = next(model_dir.glob("*.gguf"))
    config, common = "models.tt_transformers.tt.model_config", "models.tt_transformers.tt.common"
    number = r"[\d.]+"
    speed = rf"{number} tok/s/user \({number} tok/s throughput\)"
    tail = re.escape("<|im_start|>user Name three primary colors.<|im_end|> <|im_start|>assistant The primary")
    expected = [
        ("DEBUG", "conftest", "multidevice with 1 devices is created"),
        ("INFO", DEMO, "Start profiler"),
        ("INFO", DEMO, r"Reading inputs\.\.\."),
        ("INFO", config, "Inferring device name: CPU"),
        ("INFO", config, re.escape(f"Checkpoint directory: {model_dir}")),
        ("INFO", config, re.escape(f"Tokenizer file: {file}")),
        ("INFO", config, re.escape(f"Model name: {file.stem}")),
        ("INFO", DEMO, r"Starting inference\.\.\."),
        ("INFO", DEMO, "Processing batch 0"),
        ("INFO", common, "Encoded prompt lengths:35"),
        ("INFO", common, "# of users: 1"),
        ("INFO", DEMO, r"Starting prefill warmup\.\.\."),
        ("INFO", DEMO, "Finished prefill warmup"),
        ("INFO", DEMO, r"Starting prefill\.\.\."),
        ("INFO", DEMO, "Prefill finished"),
        ("INFO", DEMO, r"Starting decode loop\.\.\."),
        ("INFO", DEMO, rf"Iteration 0: \d+ms @ {speed}"),
        ("INFO", DEMO, rf"\[User 0\] \.\.\..*{tail}"),
        ("INFO", DEMO, rf"Iteration 1: \d+ms @ {speed}"),
        ("INFO", DEMO, rf"\[User 0\] \.\.\..*{tail} colors"),
        ("INFO", DEMO, r"Finished decoding, printing the final outputs\.\.\.\n"),
        ("INFO", DEMO, r"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\nName three primary colors\. \n==USER 0 - OUTPUT\n.*\n"),
        ("INFO", DEMO, ""),
        ("INFO", DEMO, "=== Performance metrics ==="),
        ("INFO", DEMO, rf"1st token decode time: {number}ms \[{number} t/s/u, {number} t/s\]"),
        ("INFO", DEMO, "=="),
        ("INFO", DEMO, rf"Prefill compile time: {number}s"),
        ("INFO", DEMO, rf"Decode compile time: {number}s"),
        ("INFO", DEMO, ""),
        ("INFO", DEMO, rf"Average Time to First Token \(TTFT\): {number}ms"),
        ("INFO", DEMO, rf"Average speed: {number}ms @ {speed}"),
        ("INFO", DEMO, rf"Model {re.escape(file.stem)} does not have prefill targets set for device CPU"),
    ]
    assert [entry[:2] for entry in said] == [entry[:2] for entry in expected]
    for (_, _, message), (_, _, pattern) in zip(said, expected, strict=True):
        assert re.fullmatch(pattern, message), (pattern, message)
    assert all(len(message) <= len("[User 0] ...") + 97 for message in run.messages if message.startswith("[User"))


def test_a_long_prompt_is_shortened_in_its_record(demo: Demo) -> None:
    prompt = "a " * 50 + "middle" + "z " * 50
    run = demo.run([prompt], "--max_generated_tokens", 1)
    shown = f"PROMPT\n{prompt[:100]}\n<long prompt not printed in full>\n{prompt[-100:]} \n==USER 0 - OUTPUT\n"
    assert sum(shown in message for message in run.messages) == 1


def test_finished_users_are_traced_at_every_iteration(demo: Demo) -> None:
    run = demo.run(["What is 2+2?", "Write a poem about rain."], "--batch_size", 2, "--max_generated_tokens", 20)
    traced = [m for m in run.messages if m.startswith("[User 0] Finished")]
    # "The answer to this classic math problem is 4." has eleven tokens: ten after the prefill's.
    assert traced == [f"[User 0] Finished decoding at iteration {k}" for k in range(10, 20)]
    assert run.answers[0] == "The answer to this classic math problem is 4."
    assert not any(m.startswith("[User 1] Finished") for m in run.messages)


def test_an_answer_ends_the_run_before_the_limit(demo: Demo) -> None:
    run = demo.run(["What is 2+2?"])
    assert (run.exit_code, run.iterations) == (0, 11)
    assert run.messages.count("[User 0] Finished decoding at iteration 10") == 1


def test_metrics_are_measured(demo: Demo) -> None:
    """They agree with the times at which the records were written."""
    run = demo.run(["Write a poem about rain. " * 12], "--max_generated_tokens", 130)
    ttft = run.number(r"Average Time to First Token \(TTFT\): ([\d.]+)ms") / 1000
    average = run.number(r"Average speed: ([\d.]+)ms .*") / 1000
    rate = run.number(r"Average speed: .* @ ([\d.]+) tok/s/user .*")
    steps = run.iterations - 1
    assert ttft == pytest.approx(run.at("Prefill finished") - run.at("Starting prefill..."), rel=0.1, abs=0.02)
    assert average * steps == pytest.approx(run.at(f"Iteration {steps}:") - run.at("Iteration 0:"), rel=0.1, abs=0.02)
    assert rate == pytest.approx(1 / average, rel=0.01)
    assert 0 < run.number(r"Prefill compile time: ([\d.]+)s") < run.seconds
    assert run.number(r"Decode compile time: ([\d.]+)s") < 10 * average + 0.01
    assert run.number(r"128th token decode time: ([\d.]+)ms .*") < 20_000 * average
    assert ttft + average * steps < run.seconds


# ---- what is answered


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 7}], ids=["greedy", "seeded"]
)
def test_a_batch_answers_as_its_prompts_alone(demo: Demo, sampling: dict) -> None:
    options = ("--sampling_params", json.dumps(sampling), "--max_generated_tokens", 24)
    prompts = EIGHT[:4]  # each alone has a model of its own
    together = demo.run(prompts, "--batch_size", 4, *options)
    alone = [
        message.removeprefix(f"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\n{prompt} \n==USER 0 - OUTPUT\n")[:-1]
        for message in demo.run_one_by_one(prompts, *options).messages
        for prompt in prompts
        if message.startswith(f"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\n{prompt} \n")
    ]
    assert together.answers == alone
    assert len(set(alone)) == 4


def test_thirty_two_users_answer_their_own_prompts(demo: Demo) -> None:
    prompts = [f"Say the number {number}." for number in range(32)]
    run = demo.run(prompts, "--max_generated_tokens", 3, "--instruct", 0, only="performance-batch-32")
    assert run.exit_code == 0
    assert "# of users: 32" in run.messages
    assert len(run.answers) == 32
    assert all(run.answers)


@pytest.mark.parametrize(("limit", "answer"), [(1, ""), (2, "🎉"), (4, "🎉"), (5, "🎉🚀"), (11, "🎉🚀🚀🎉")])
def test_the_limit_gives_one_token_more(demo: Demo, limit: int, answer: str) -> None:
    """The prefill's token and one for each iteration; here three of them make one character."""
    run = demo.run([PARTY], "--max_generated_tokens", limit)
    assert (run.exit_code, run.iterations, run.answers) == (0, limit, [answer])
    assert not any("Finished decoding at" in message for message in run.messages)


def test_tokens_that_arrive_together_share_their_time(demo: Demo) -> None:
    """The engine sends nothing before a character is whole; that must not show as iterations without any time."""
    run = demo.run([PARTY], "--max_generated_tokens", 20)
    speeds = [re.fullmatch(r"Iteration \d+: .*ms @ ([\d.]+) tok/s/user .*", message) for message in run.messages]
    rates = [float(found.group(1)) for found in speeds if found]
    assert len(rates) == 20
    assert min(rates) > 0
    assert max(rates) < 10 * run.number(r"Average speed: .* @ ([\d.]+) tok/s/user .*")


def test_one_iteration_has_no_average(demo: Demo) -> None:
    run = demo.run(["Say hi."], "--max_generated_tokens", 1)
    assert run.exit_code == 0
    assert "Average speed: 0ms @ 0 tok/s/user (0 tok/s throughput)" in run.messages
    assert not any(message.startswith("1st token") for message in run.messages)


def test_a_zero_limit_is_the_default_limit(demo: Demo) -> None:
    run = demo.run(["Write a poem about rain."], "--max_generated_tokens", 0, "--stop_at_eos", 0)
    assert run.iterations == 200


def test_an_empty_answer_is_empty(demo: Demo) -> None:
    """The model has nothing to add to this: its first token is the end."""
    run = demo.run([ENDED], "--instruct", 0)
    assert (run.exit_code, run.iterations, run.answers) == (0, 1, [""])
    assert "[User 0] Finished decoding at iteration 0" in run.messages
    assert "Average speed: 0ms @ 0 tok/s/user (0 tok/s throughput)" in run.messages


def test_without_instruct_the_text_is_read_as_it_is(demo: Demo) -> None:
    run = demo.run(["One, two, three, four, five"], "--instruct", 0, "--max_generated_tokens", 3)
    assert "[User 0] One, two, three, four, five, six" in run.messages


def test_without_stop_at_eos_only_the_limit_ends_the_run(demo: Demo) -> None:
    run = demo.run(["What is 2+2?"], "--stop_at_eos", 0, "--max_generated_tokens", 15)
    assert (run.exit_code, run.iterations) == (0, 15)
    assert "The decode generation will only stop at the max_generated_tokens limit == 15" in run.messages
    assert "Please note that 'stop_at_eos' is disabled. Output repetition is expected." in run.messages
    assert run.answers[0].startswith("The answer to this classic math problem is 4.")
    assert len(run.answers[0]) > len("The answer to this classic math problem is 4.")


HOT = {"temperature": 1.5, "top_p": 1.0}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"temperature": 0, "seed": 5}, True),
        (HOT, HOT, True),
        (HOT, HOT | {"seed": 213919}, True),
        (HOT | {"seed": 1}, HOT | {"seed": 2}, False),
        (HOT, {"temperature": 0}, False),
        (HOT | {"top_k": 1}, {"temperature": 0}, True),
        (HOT | {"top_p": 0.0001}, {"temperature": 0}, True),
    ],
    ids=[
        "greedy_ignores_the_seed",
        "no_seed_repeats",
        "no_seed_is_the_default_seed",
        "seeds_differ",
        "temperature_differs",
        "top_k_of_one_is_greedy",
        "smallest_top_p_is_greedy",
    ],
)
def test_sampling_params(demo: Demo, one: dict, other: dict, same: bool) -> None:
    first, second = (
        demo.run(["Write a poem about rain."], "--max_generated_tokens", 16, "--sampling_params", json.dumps(params))
        for params in (one, other)
    )
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert (first.answers == second.answers) is same


def test_sampling_params_may_come_from_a_plugin(demo: Demo) -> None:
    (demo.folder / "sampling.py").write_text(
        "def pytest_configure(config):\n    config.option.sampling_params = {'temperature': 1.5, 'seed': 3}\n"
    )
    options = ("--max_generated_tokens", 16)
    plugin = demo.run(["Write a poem about rain."], "-p", "sampling", *options)
    flag = demo.run(["Write a poem about rain."], "--sampling_params", '{"temperature": 1.5, "seed": 3}', *options)
    assert plugin.answers == flag.answers
    assert plugin.answers != demo.run(["Write a poem about rain."], *options).answers


@pytest.mark.parametrize("users", [1, 4])
def test_a_plugin_can_end_the_decode_after_the_first_token(demo: Demo, users: int) -> None:
    (demo.folder / "one_token.py").write_text(
        "import sys\n"
        "from loguru import logger\n"
        "def finish(message):\n"
        "    frame = sys._getframe()\n"
        "    while frame.f_code.co_name != 'test_demo_text':\n"
        "        frame = frame.f_back\n"
        "    assert len(frame.f_locals['all_outputs']) == len(frame.f_locals['user_done'])\n"
        "    frame.f_locals['user_done'][:] = [True] * len(frame.f_locals['user_done'])\n"
        "logger.add(finish, filter=lambda r: r['message'] == 'Starting decode loop...', catch=False)\n"
    )
    prompts = EIGHT[:users]
    run = demo.run(prompts, "-p", "one_token", "--batch_size", users)
    assert (run.exit_code, run.iterations) == (0, 1)
    assert run.answers == ["The", "The", "Hello", "In"][:users]
