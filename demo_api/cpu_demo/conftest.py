"""The demo's options and fixtures.

In tt-metal the options are in models/tt_transformers/demo/conftest.py. Here they are in the root, so that
``pytest --help`` shows them from there too.
"""

import argparse
import json
import os
from contextlib import ExitStack

import pytest
from loguru import logger

IGNORED = {
    "paged_attention": "paged attention",
    "page_params": "paged attention's blocks",
    "optimizations": "the precision of the weights",
    "decoder_config_file": "the precision of each decoder",
    "token_accuracy": "comparing tokens with a reference",
    "stress_test": "the stress test",
    "enable_trace": "traces of device commands",
    "num_layers": "a model with fewer layers",
    "mode": "the part that is run",
}


def json_object(text):
    """What ``--sampling_params`` takes on the command line."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value


def pytest_addoption(parser):
    group = parser.getgroup("demo", "the text demo, CPU edition")
    group.addoption("--input_prompts", help='a JSON file: [{"prompt": "..."}, ...]')
    group.addoption("--instruct", type=int, help="1: use the model's chat template, 0: the raw text")
    group.addoption("--repeat_batches", type=int, help="how often the batch is run, its prompts rotated by one user")
    group.addoption("--max_seq_len", type=int, help="the longest prompt with its answer, in tokens")
    group.addoption("--batch_size", type=int, help="how many prompts are answered together: 1, 2, 4, 8, 16 or 32")
    group.addoption("--max_generated_tokens", type=int, help="how many tokens are decoded at most for each user")
    group.addoption("--data_parallel", type=int, help="groups of devices: there is one CPU, so only 1 is run")
    group.addoption(
        "--sampling_params",
        type=json_object,
        help="""JSON, such as '{"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 1}'; temperature 0 is greedy""",
    )
    group.addoption("--stop_at_eos", type=int, help="1: stop at the end of the answer, 0: only at the limit")
    for name, what in IGNORED.items():
        group.addoption(f"--{name}", help=f"accepted and ignored on a CPU: {what}")


@pytest.fixture
def is_ci_env():
    return os.environ.get("CI") == "true" or "TT_GH_CI_INFRA" in os.environ


@pytest.fixture
def mesh_device(request):
    """The device: whatever a test opens on it is closed after the test, after Ctrl-C too."""
    with ExitStack() as device:
        logger.debug("multidevice with 1 devices is created")
        for name in IGNORED:
            if request.config.getoption(f"--{name}") is not None:
                logger.warning(f"--{name} has no effect on a CPU")
        yield device
