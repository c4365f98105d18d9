"""What tt-metal's demo logs, in its order, word for word.

The functions yield ``(level, message)`` and each child logs them itself, from its ``test_demo_text``: so the records
come from where the demo's come from. Tokens are words here. Only the lines of tt-metal's other modules are logged here.
"""

import json
import re
from pathlib import Path

import pytest
from loguru import logger

cases = pytest.mark.parametrize(
    "batch_size",
    [
        pytest.param(1, id="performance-batch-1"),
        pytest.param(32, id="performance-batch-32"),
        pytest.param(1, id="accuracy-batch-1"),
    ],
)


class ModelArgs:
    def __init__(self, max_batch_size, max_seq_len):
        self.max_batch_size, self.max_seq_len = max_batch_size, max_seq_len


class Model:
    runs = 0


class Generator:
    def __init__(self, model, model_args, mesh_device, tokenizer=None):
        self.model = model
        self.prev_page_table = None


def create_tt_model(mesh_device, max_batch_size, max_seq_len):
    return ModelArgs(max_batch_size, max_seq_len), Model(), None, None


def prompts(request, batch_size):
    """One prompt for each user: a file with fewer repeats them, one with more loses the rest."""
    size = request.config.getoption("--batch_size") or batch_size
    entries = json.loads(Path(request.config.getoption("--input_prompts")).read_text())
    return [entry["prompt"] for entry in entries * size][:size]


def run(request, batch_size, answer):
    """All lines of a run that goes well; ``answer`` makes a text, or a list of tokens, from a prompt."""
    inputs = prompts(request, batch_size)
    yield from opening(inputs)
    outputs = yield from decoding(request, inputs, [answer(prompt) for prompt in inputs])
    yield from answers(inputs, outputs)
    yield from metrics(len(inputs))


def opening(inputs):
    yield "INFO", "Start profiler"
    yield "INFO", "Reading inputs..."
    yield "INFO", "Starting inference..."
    yield "INFO", "Processing batch 0"
    common = _logger("models.tt_transformers.tt.common", "preprocess_inputs_prefill")
    common.info("Encoded prompt lengths:" + ", ".join(str(len(prompt.split()) + 10) for prompt in inputs))
    common.info(f"# of users: {len(inputs)}")
    yield "INFO", "Starting prefill warmup..."
    yield "INFO", "Finished prefill warmup"
    yield "INFO", "Starting prefill..."
    yield "INFO", "Prefill finished"
    yield "INFO", "Starting decode loop..."
    generator = _logger("models.tt_transformers.tt.generator", "_capture_trace_text")
    generator.info("Done Compiling Model")
    generator.info("Done Capturing Decode Trace")


def decoding(request, inputs, texts):
    """The first token comes from the prefill; each iteration adds one more, or finds that the answer is over."""
    tokens = [split(text) for text in texts]
    outputs = [words[:1] for words in tokens]
    done = [False] * len(inputs)
    for iteration in range(request.config.getoption("--max_generated_tokens") or 200):
        yield "INFO", f"Iteration {iteration}: 16ms @ 64.3 tok/s/user ({64.3 * len(inputs):.1f} tok/s throughput)"
        for user, words in enumerate(tokens):
            if iteration + 1 < len(words):
                outputs[user].append(words[iteration + 1])
            else:
                done[user] = True
                yield "TRACE", f"[User {user}] Finished decoding at iteration {iteration}"
        for user, (prompt, output) in enumerate(zip(inputs, outputs, strict=True)):
            yield "INFO", f"[User {user}] {tail(prompt, output)}"
        if all(done):
            break
    yield "INFO", "Finished decoding, printing the final outputs...\n"
    return outputs


def answers(inputs, outputs):
    for user, (prompt, output) in enumerate(zip(inputs, outputs, strict=True)):
        short = prompt[:100] + "\n<long prompt not printed in full>\n" + prompt[-100:] if len(prompt) > 200 else prompt
        text = "".join(output).strip()
        yield "INFO", f"\n==REPEAT BATCH 0\n==USER {user} - PROMPT\n{short} \n==USER {user} - OUTPUT\n{text}\n"


def metrics(users):
    yield "INFO", ""
    yield "INFO", "=== Performance metrics ==="
    yield "INFO", f"1st token decode time: 19.62ms [50.98 t/s/u, {50.98 * users:.2f} t/s]"
    yield "INFO", "=="
    yield "INFO", "Prefill compile time: 0.08s"
    yield "INFO", "Decode compile time: 0.42s"
    yield "INFO", ""
    yield "INFO", "Average Time to First Token (TTFT): 80.14ms"
    yield "INFO", f"Average speed: 23.08ms @ 43.33 tok/s/user ({43.33 * users:.2f} tok/s throughput)"
    yield "INFO", "Model Llama-3.2-1B does not have prefill targets set for device N150"


def split(text):
    """A text's tokens: its words, each with the space that follows it."""
    return re.findall(r"\S+\s*|^\s+", text) if isinstance(text, str) else list(text)


def tail(prompt, output):
    text = f"{prompt}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" + "".join(output)
    return ("..." + text[-97:] if len(text) > 100 else text).replace("\n", " ")


def _logger(name, function):
    return logger.patch(lambda record: record.update(name=name, function=function))
