"""How a child is started: its command line, its environment, and what the plugin is to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_api.demo.home import SCRIPT, ResolvedDemo
from demo_api.demo.run_folder import RunFolder
from demo_api.messages import Request, Run

PLUGIN = Path(__file__).parent / "plugin"

MARK = "DEMO_API_RUN"
"""The environment variable that has a batch's id in all processes of its child."""

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""The batch sizes that the demo knows."""

PAGE_CACHE_TOKENS = 32_768
"""Tokens that the page cache of ``performance-batch-1`` holds for all users together: 1024 blocks of 32."""

TEMPLATE_TOKENS = 256
"""More than the chat templates of the Llama family add to a prompt."""

DEFAULT_TEMPERATURE = 0.7
TOP_K = 32
"""The 2026 demo wants ``top_k`` beside the other two; this is its own default."""

_SELECTION = ("-p", "demo_api_child", "-k", "performance-batch-1", "-s")

_DROPPED = {"CI", "TT_GH_CI_INFRA", "LLAMA_DIR", "HF_MODEL", "PYTHONPATH", "PYTHONHOME", "FORCE_COLOR", "PY_COLORS"}
_DROPPED_PREFIXES = ("DEMO_API_", "LOGURU_", "PYTEST_")


@dataclass(frozen=True)
class LaunchSpec:
    """All that decides how a child starts: two that are equal start the same child."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]


def launch_spec(
    demo: ResolvedDemo, device: Mapping[str, str], folder: RunFolder, options: Mapping[str, object]
) -> LaunchSpec:
    """How the child of a batch starts.

    Args:
        device: the variables that select the device.
        folder: the batch's.
        options: the demo's, by their names; none for a child that starts before its batch.
    """
    # One word each: pytest looks for its ini file before it knows the demo's options, and takes every word without a
    # dash for a path to look near. So a run's folder below somebody's pytest.ini would change how the demo is run.
    words = [f"--{name}={value}" for name, value in {**options, "junitxml": folder.junit}.items()]
    argv = [str(demo.python), "-u", "-m", "pytest", str(SCRIPT), *_SELECTION, *words]
    return LaunchSpec(argv, demo.home, environment(demo, device, folder))


def environment(demo: ResolvedDemo, device: Mapping[str, str], folder: RunFolder) -> dict[str, str]:
    """The child's: the server's, without what would change what the demo does or prints, and with what it needs."""
    kept = {
        name: value
        for name, value in demo.inherited.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    # Every pytest loads the plugins that happen to be installed: hypothesis, anyio and the like were seen to take 40 %
    # of the startup. The CPU edition needs none; tt-metal's ini and conftest files speak of some of theirs.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if demo.is_cpu_demo else {}
    return {
        **kept,
        **device,
        **plugins,
        demo.model_variable: demo.model,
        "PYTHONPATH": os.pathsep.join([str(demo.home), str(PLUGIN)]),
        "PYTHONIOENCODING": "utf-8",  # the reader's encoding, whatever the locale is
        "LOGURU_SERIALIZE": "1",
        "LOGURU_LEVEL": "TRACE",
        "DEMO_API_CHILD": str(folder.plugin_config),
    }


def options(demo: ResolvedDemo, requests: Sequence[Request], folder: RunFolder) -> dict[str, object]:
    """The demo's options for a batch.

    Args:
        requests: those of the batch; all have the same ``max_tokens``.
    """
    size = _batch_size(len(requests))
    # A bound over the limit may still fit, so the demo itself is left to count.
    longest = min(_power_of_two(max(map(_tokens, requests))), sequence_limit(demo.context_length, size))
    return {
        "input_prompts": str(folder.prompts),
        "max_seq_len": longest,
        # At its limit N the demo has answered N+1 tokens, and 0 would mean its default. The plugin does the rest.
        "max_generated_tokens": max(1, requests[0].max_tokens - 1),
        "batch_size": size,
        "instruct": 1,
    }


def plugin_config(device: str) -> dict[str, object]:
    """What the plugin ``demo_api_child`` needs in any case; its docstring explains each. ``device`` is for us."""
    return {"parent_pid": os.getpid(), "device": device}


def sampling_options(demo: ResolvedDemo, requests: Sequence[Request]) -> dict[str, object]:
    """What the plugin is to do for a batch that the command line cannot carry.

    Args:
        requests: those of the batch; all have the same sampling and ``max_tokens``.
    """
    request = requests[0]
    temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    sampling: dict[str, object] = {"temperature": temperature, "top_p": request.top_p, "top_k": TOP_K}
    if request.seed is not None:
        sampling["seed"] = request.seed
    if demo.takes_lists:
        # It would take one value as the first user's, and have the others greedy. Where it samples on the host, some
        # want enable_log_probs beside a list.
        size = _batch_size(len(requests))
        sampling = {name: [value] * size for name, value in {**sampling, "enable_log_probs": False}.items()}
    return {"sampling_params": sampling, "first_token_only": request.max_tokens == 1}


def choose(context_length: int | None, runs: Sequence[Run]) -> list[Run]:
    """Which of these runs, oldest first and alike in all but their prompts, fit into the page cache of one child.

    Each must surely fit, so that nobody's long prompt fails the others' answers. The first is taken in any case: what
    may not fit runs alone.
    """
    chosen, tokens = [runs[0]], _tokens(runs[0].request)
    for run in runs[1:]:
        longest = max(tokens, _tokens(run.request))
        cached = PAGE_CACHE_TOKENS // _batch_size(len(chosen) + 1)
        if _power_of_two(longest) <= cached and longest <= (context_length or longest):
            chosen.append(run)
            tokens = longest
    return chosen


def pad_to_batch_size(prompts: list[str]) -> list[str]:
    """The prompts, the last one repeated until they are as many as a batch size that the demo knows."""
    return prompts + prompts[-1:] * (_batch_size(len(prompts)) - len(prompts))


def sequence_limit(context_length: int | None, batch_size: int) -> int:
    """The most tokens that one user's prompt and answer can have together: by the page cache, and by the model."""
    cached = PAGE_CACHE_TOKENS // batch_size
    return min(cached, context_length or cached)


def _batch_size(prompts: int) -> int:
    return next(size for size in BATCH_SIZES if size >= prompts)


def _tokens(request: Request) -> int:
    # A byte-level vocabulary never makes more tokens than there are bytes.
    return len(request.prompt.encode()) + TEMPLATE_TOKENS + request.max_tokens


def _power_of_two(tokens: int) -> int:
    """The sequence length for so many tokens: a power of two, so that few different programs are compiled."""
    return 1 << (max(1024, tokens) - 1).bit_length()
