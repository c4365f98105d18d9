"""Loads a model as tt-metal's demo does, and answers with what it finds: in JSON, a byte a token.

Some prompts are orders: "too long" fails before the model is asked anything, "break" while it decodes; "endless"
decodes until it is told to stop, "deaf" does not hear that. CHILD_LOAD is what the model takes to load, in seconds.
"""

import json
import os
import time
from pathlib import Path

import demo_lines
import pytest
from demo_lines import Generator
from loguru import logger


def note(name, value):
    with open(HOME / name, "a") as file:
        file.write(f"{value}\n")


HOME = Path(__file__).parents[3]


class Tokenizer:
    stop_tokens = (0,)

    def decode(self, tokens):
        return bytes(tokens).decode("utf-8", "replace")


def create_tt_model(mesh_device, max_batch_size, max_seq_len):
    time.sleep(float(os.environ.get("CHILD_LOAD", "0")))
    note("loads", f"{max_batch_size} users, {max_seq_len} tokens")
    return demo_lines.create_tt_model(mesh_device, max_batch_size, max_seq_len)


@pytest.fixture
def mesh_device(request, batch_size):
    note("device", "opened")
    yield object()
    note("device", "closed")


def facts(prompt, generator):
    model = generator.model[0]
    model.runs += 1
    found = {
        "prompt": prompt,
        "pid": os.getpid(),
        "model_runs": model.runs,
        "page_table": generator.prev_page_table,
        "left_behind": os.environ.get("LEFT_BEHIND"),
        "folder": str(Path.cwd()),
    }
    generator.prev_page_table = "stale"
    os.environ["LEFT_BEHIND"] = "by an earlier run"
    os.chdir("/")
    return json.dumps(found, ensure_ascii=False)


@demo_lines.cases
def test_demo_text(request, batch_size, mesh_device):
    inputs = demo_lines.prompts(request, batch_size)
    limit = request.config.getoption("--max_generated_tokens")
    model_args, model, _, _ = create_tt_model(
        mesh_device, max_batch_size=len(inputs), max_seq_len=request.config.getoption("--max_seq_len")
    )
    tokenizer = Tokenizer()
    generator = Generator([model], [model_args], mesh_device, tokenizer=tokenizer)
    for level, message in demo_lines.opening(inputs):
        if "too long" in inputs and message.startswith("Starting prefill"):
            raise AssertionError("Prompt prefill tokens (99) + maximum number of decoded iterations: too long")
        if message != "Starting decode loop...":
            logger.log(level, message)
    texts = [list(facts(prompt, generator).encode()) for prompt in inputs]
    all_outputs = [list(prompt.encode()) + text[:1] for prompt, text in zip(inputs, texts, strict=True)]
    user_done = [False] * len(inputs)
    iteration = 0
    logger.info("Starting decode loop...")
    while (iteration < limit or "endless" in inputs) and not all(user_done):
        if "break" in inputs:
            raise RuntimeError("TT_FATAL: the device has lost its mind")
        logger.info(f"Iteration {iteration}: 16ms @ 64.3 tok/s/user (64.3 tok/s throughput)")
        if "deaf" in inputs:
            user_done[:] = [False] * len(inputs)
        for user, (prompt, text) in enumerate(zip(inputs, texts, strict=True)):
            if prompt in ("endless", "deaf") and not user_done[user]:
                time.sleep(0.02)
            elif iteration + 1 < len(text) and not user_done[user]:
                all_outputs[user].append(text[iteration + 1])
            elif not user_done[user]:
                user_done[user] = True
                logger.trace(f"[User {user}] Finished decoding at iteration {iteration}")
        for user, output in enumerate(all_outputs):
            logger.info(f"[User {user}] {demo_lines.tail(inputs[user], [])[-90:]}{len(output)}")
        iteration += 1
    logger.info("Finished decoding, printing the final outputs...\n")
    outputs = [[tokenizer.decode(out[len(prompt.encode()) :])] for prompt, out in zip(inputs, all_outputs, strict=True)]
    for level, message in (*demo_lines.answers(inputs, outputs), *demo_lines.metrics(len(inputs))):
        logger.log(level, message)
