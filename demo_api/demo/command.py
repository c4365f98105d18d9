"""How a child is started: its command line, its environment, and what the plugin is to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_api.demo.home import SCRIPT, ResolvedDemo
from demo_api.demo.model_shape import ModelShape
from demo_api.demo.run_folder import RunFolder
from demo_api.messages import Request

PLUGIN = Path(__file__).parent / "plugin"

MARK = "DEMO_API_RUN"
"""The environment variable that has a batch's id in all processes of its child."""

DEFAULT_TEMPERATURE = 0.7
TOP_K = 32
"""The 2026 demo wants ``top_k`` beside the other two; this is its own default."""

_SELECTION = ("-k", "performance-batch-1", "-s")

_DROPPED = {"CI", "TT_GH_CI_INFRA", "LLAMA_DIR", "HF_MODEL", "PYTHONPATH", "PYTHONHOME", "FORCE_COLOR", "PY_COLORS"}
_DROPPED_PREFIXES = ("DEMO_API_", "LOGURU_", "PYTEST_")


@dataclass(frozen=True)
class LaunchSpec:
    """All that decides how a child starts: two that are equal start the same child."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]


def launch_spec(
    demo: ResolvedDemo,
    device: Mapping[str, str],
    folder: RunFolder,
    options: Mapping[str, object],
    *,
    keeps_model: bool = False,
) -> LaunchSpec:
    """How the child of a batch starts.

    Args:
        device: the variables that select the device.
        folder: the batch's.
        options: the demo's, by their names; none for a child that starts before its batch.
        keeps_model: whether it is to answer further batches with the model that it has loaded.
    """
    program = ["demo_api_batches"] if keeps_model else ["pytest", "-p", "demo_api_child"]
    argv = [str(demo.python), "-u", "-m", *program, *pytest_words(folder, options)]
    return LaunchSpec(argv, demo.home, environment(demo, device, folder))


def pytest_words(folder: RunFolder, options: Mapping[str, object]) -> list[str]:
    """What pytest is told for a batch."""
    # One word each: pytest looks for its ini file before it knows the demo's options, and takes every word without a
    # dash for a path to look near. So a run's folder below somebody's pytest.ini would change how the demo is run.
    words = [f"--{name}={value}" for name, value in {**options, "junitxml": folder.junit}.items()]
    return [str(SCRIPT), *_SELECTION, *words]


def environment(demo: ResolvedDemo, device: Mapping[str, str], folder: RunFolder) -> dict[str, str]:
    """The child's: the server's, without what would change what the demo does or prints, and with what it needs."""
    # Every pytest loads the plugins that happen to be installed: hypothesis, anyio and the like were seen to take 40 %
    # of the startup. The CPU edition needs none; tt-metal's ini and conftest files speak of some of theirs.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if demo.is_cpu_demo else {}
    return {
        **home_environment(demo.inherited, device, (demo.model_variable, demo.model), [demo.home, PLUGIN]),
        **plugins,
        "LOGURU_SERIALIZE": "1",
        "LOGURU_LEVEL": "TRACE",
        "DEMO_API_CHILD": str(folder.plugin_config),
    }


def home_environment(
    inherited: Mapping[str, str], device: Mapping[str, str], model: tuple[str, str], folders: Sequence[Path]
) -> dict[str, str]:
    """What every process that runs a demo home's code gets.

    Args:
        inherited: the server's environment.
        device: the variables that select the device.
        model: the variable that names the model, and its value.
        folders: where Python looks for modules first.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    return {
        **kept,
        **device,
        model[0]: model[1],
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONIOENCODING": "utf-8",  # the reader's encoding, whatever the locale is
    }


def options(shape: ModelShape, request: Request, folder: RunFolder) -> dict[str, object]:
    """The demo's options for a batch.

    Args:
        request: any of the batch; all have the same ``max_tokens``.
    """
    return {
        "input_prompts": str(folder.prompts),
        "max_seq_len": shape.max_seq_len,
        # At its limit N the demo has answered N+1 tokens, and 0 would mean its default. The plugin does the rest.
        "max_generated_tokens": max(1, request.max_tokens - 1),
        "batch_size": shape.batch_size,
        "instruct": 1,
    }


def plugin_config(device: str, child_id: str) -> dict[str, object]:
    """What the plugin ``demo_api_child`` needs in any case; its docstring explains each. The other two are for us.

    Args:
        child_id: the value of ``MARK`` in the child's processes: the id of its first batch.
    """
    return {"parent_pid": os.getpid(), "device": device, "child": child_id}


def sampling_options(demo: ResolvedDemo, shape: ModelShape, request: Request) -> dict[str, object]:
    """What the plugin is to do for a batch that the command line cannot carry.

    Args:
        request: any of the batch; all have the same sampling and ``max_tokens``.
    """
    temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    sampling: dict[str, object] = {"temperature": temperature, "top_p": request.top_p, "top_k": TOP_K}
    if request.seed is not None:
        sampling["seed"] = request.seed
    if demo.takes_lists:
        # It would take one value as the first user's, and have the others greedy. Where it samples on the host, some
        # want enable_log_probs beside a list.
        sampling = {name: [value] * shape.batch_size for name, value in {**sampling, "enable_log_probs": False}.items()}
    return {"sampling_params": sampling, "first_token_only": request.max_tokens == 1}
