"""The CPU edition of the demo, run as real child processes with the real small model."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from support.waiting import until

HOME = Path(__file__).parents[2] / "demo_api" / "cpu_demo"
SCRIPT = Path("models/tt_transformers/demo/simple_text_demo.py")
DEMO = "models.tt_transformers.demo.simple_text_demo"

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


@dataclass
class Run:
    """What one run of the demo left: its exit code, its report, its records."""

    exit_code: int
    stdout: str
    records: list[dict]
    prompts: list[str]
    seconds: float

    @property
    def messages(self) -> list[str]:
        return [record["message"] for record in self.records]

    @property
    def iterations(self) -> int:
        return sum(re.match(r"Iteration \d+: ", message) is not None for message in self.messages)

    @property
    def answers(self) -> list[str]:
        """The answers of repeat batch 0."""
        found = []
        for user, prompt in enumerate(self.prompts):
            prefix = f"\n==REPEAT BATCH 0\n==USER {user} - PROMPT\n{prompt} \n==USER {user} - OUTPUT\n"
            found += [m[len(prefix) : -1] for m in self.messages if m.startswith(prefix) and m.endswith("\n")]
        return found

    def at(self, message: str) -> float:
        """The time of the first record that starts so."""
        return next(r["time"]["timestamp"] for r in self.records if r["message"].startswith(message))

    def number(self, pattern: str) -> float:
        """The number in the one message that matches."""
        (found,) = [m.group(1) for m in (re.fullmatch(pattern, message) for message in self.messages) if m]
        return float(found)


class Demo:
    """Starts the demo in a folder of its own."""

    def __init__(self, folder: Path, model_dir: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen] = []
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "LLAMA_DIR": str(model_dir),
            "LOGURU_SERIALIZE": "1",
            "LOGURU_LEVEL": "TRACE",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(folder),
            "TMPDIR": str(self.temporary),
        }

    def spawn(self, prompts: object, *options: object, only: str = "performance-batch-1", **env: str | None):
        """A child process with its output in files; ``env`` replaces variables, None removes them."""
        file = self.folder / "prompts.json"
        file.write_text(json.dumps([{"prompt": p} for p in prompts] if isinstance(prompts, list) else prompts))
        environment = {name: value for name, value in (self.environment | env).items() if value is not None}
        command = [sys.executable, "-m", "pytest", HOME / SCRIPT, "-s", "-k", only, "--input_prompts", file, *options]
        with open(self.folder / "stdout", "w") as stdout, open(self.folder / "stderr", "w") as stderr:
            child = subprocess.Popen(
                [str(part) for part in command], stdout=stdout, stderr=stderr, cwd=self.folder, env=environment
            )
        self.children.append(child)
        return child

    def run(self, prompts: object, *options: object, only: str = "performance-batch-1", **env: str | None) -> Run:
        started = time.perf_counter()
        child = self.spawn(prompts, *options, only=only, **env)
        child.wait(timeout=60)
        return self.ended(child, prompts if isinstance(prompts, list) else [], time.perf_counter() - started)

    def run_one_by_one(self, prompts: list[str], *options: object) -> Run:
        """One session that runs the test for each prompt alone, with a model of its own each time."""
        (self.folder / "one_by_one.py").write_text(
            "def pytest_runtestloop(session):\n"
            "    item = next(i for i in session.items if i.nodeid.endswith('performance-batch-1]'))\n"
            f"    for prompt in {prompts!r}:\n"
            "        session.config.option.input_prompts = [prompt]\n"
            "        item._initrequest()\n"
            "        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)\n"
            "    return True\n"
        )
        return self.run([], "-p", "one_by_one", *options)

    def ended(self, child: subprocess.Popen, prompts: list[str], seconds: float = 0) -> Run:
        # Every line has to be a record: whatever else the engine printed would be an error here.
        records = [json.loads(line)["record"] for line in (self.folder / "stderr").read_text().splitlines()]
        return Run(child.returncode, (self.folder / "stdout").read_text(), records, prompts, seconds)

    def wait_for(self, message: str, child: subprocess.Popen) -> None:
        """Waits until the child has logged ``message``."""
        needle = json.dumps(message)[1:-1]

        def is_logged() -> bool:
            found = needle in (self.folder / "stderr").read_text()
            assert found or child.poll() is None, f"it ended before it logged {message}"
            return found

        until(is_logged, tick_seconds=0.005)


@pytest.fixture
def demo(tmp_path: Path, model_dir: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path, model_dir)
    yield demo
    for child in demo.children:
        child.kill()  # nothing, where it has ended as it should
        child.wait(30)


def pytest_in(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess:
    """Plain pytest in a folder, with next to nothing in the environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=folder, env=environment | env, capture_output=True, text=True, timeout=60)


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
    together = demo.run(EIGHT, "--batch_size", 8, *options)
    alone = [
        message.removeprefix(f"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\n{prompt} \n==USER 0 - OUTPUT\n")[:-1]
        for message in demo.run_one_by_one(EIGHT, *options).messages
        for prompt in EIGHT
        if message.startswith(f"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\n{prompt} \n")
    ]
    assert together.answers == alone
    assert len(set(alone)) == 8


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


# ---- how it is stopped, and what it leaves


@pytest.mark.parametrize(
    ("message", "delay"),
    [
        ("Model name: ", 0.0),
        ("Model name: ", 0.1),
        ("Starting prefill...", 0.5),
        ("Iteration 3:", 0.0),
        ("Finished decoding, printing", 0.0),
    ],
    ids=["load", "later_in_load", "prefill", "decode", "end"],
)
def test_ctrl_c_ends_it_and_leaves_nothing(demo: Demo, message: str, delay: float) -> None:
    prompts = ["word " * 5000] if "prefill" in message else ["Write a poem about rain."]
    options = ("--max_seq_len", 8000, "--max_generated_tokens", 20 if "Finished" in message else 2000)
    child = demo.spawn(prompts, *options)
    demo.wait_for(message, child)
    time.sleep(delay)
    child.send_signal(signal.SIGINT)
    started = time.perf_counter()
    assert child.wait(timeout=30) == 2
    assert time.perf_counter() - started < 10, "within one step of the engine, on a busy machine too"
    run = demo.ended(child, prompts)
    assert "KeyboardInterrupt" in run.stdout
    assert list(demo.temporary.iterdir()) == []


def ask(address: str, path: str, key: str | None) -> int:
    """The status of a request to a Unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    connection.sock.connect(address)
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    connection.request("POST", path, json.dumps({"prompt": "x", "content": "x", "messages": []}), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_engine_is_no_back_door(demo: Demo) -> None:
    child = demo.spawn(["Write a poem about rain."], "--max_seq_len", 8000, "--max_generated_tokens", 2000)
    try:
        demo.wait_for("Iteration 3:", child)
        process = psutil.Process(child.pid)
        (address,) = {c.laddr for c in process.net_connections("unix") if c.laddr}
        assert process.net_connections("inet") == [], "it listens on no port"
        assert stat.S_IMODE(Path(address).parent.stat().st_mode) == 0o700
        for path in ("/completion", "/tokenize", "/apply-template", "/v1/chat/completions", "/props", "/slots/0"):
            for key in (None, "", "wrong"):
                assert ask(address, path, key) == 401, path
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=30)


def test_the_engine_can_be_closed_as_soon_as_it_is_open(demo: Demo) -> None:
    """xllamacpp's server never ends if it is freed before its loop has begun, which Ctrl-C during the load can do."""
    code = (
        "from contextlib import ExitStack\n"
        "from models.tt_transformers.tt import model\n"
        "from models.tt_transformers.tt.model_config import ModelArgs\n"
        "class Dropped(model._Engine):\n"
        "    _server = property(lambda self: None, lambda self, server: None)  # frees it at once\n"
        "model._Engine = Dropped\n"
        "for _ in range(12):\n"
        "    with ExitStack() as device:\n"
        "        model.Model(ModelArgs(1, 64), device)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=demo.environment | {"PYTHONPATH": str(HOME)}, check=True, timeout=40,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert list(demo.temporary.iterdir()) == []


def test_a_long_temporary_path_does_not_matter(demo: Demo) -> None:
    longer = demo.temporary / ("x" * 90)
    longer.mkdir()
    run = demo.run(["Say hi."], "--max_generated_tokens", 1, TMPDIR=str(longer))
    assert run.exit_code == 0


def test_nothing_but_pytest_writes_to_stdout(demo: Demo) -> None:
    run = demo.run(["Say hi."], "--max_generated_tokens", 1)
    lines = [line for line in run.stdout.splitlines() if line and not line.startswith("=")]
    known = ("platform ", "cachedir: ", "rootdir: ", "configfile: ", "plugins: ", "collecting ", "PASSED")
    assert [line for line in lines if not line.startswith(known) and "test_demo_text" not in line] == []
    assert list(demo.temporary.iterdir()) == []


def test_what_a_killed_demo_left_in_the_temporary_folder_is_removed_by_the_next(demo: Demo) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:  # a socket's path must be short
        child = demo.spawn(["Count from one to a thousand."], "--max_generated_tokens", 500, TMPDIR=temporary)
        demo.wait_for("Starting decode loop...", child)
        child.kill()
        child.wait(10)
        assert list(Path(temporary).glob("cpu-demo-*"))
        demo.run(["Say hi."], "--max_generated_tokens", 1, TMPDIR=temporary)
        assert list(Path(temporary).glob("cpu-demo-*")) == []
