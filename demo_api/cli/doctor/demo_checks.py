"""Checks of the demo home, and of the settings that reach the demo."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from demo_api.cli.doctor import source
from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.probe import Setup
from demo_api.config import Settings
from demo_api.demo import home

NEEDED_OPTIONS = ("--input_prompts", "--max_seq_len", "--max_generated_tokens", "--batch_size", "--instruct")
"""What the server's command line gives the demo."""

LATER_OPTIONS = ("--use_prefetcher", "--disable_trace", "--skip_perf_report", "--use_hf_rope")
"""Options that came during 2026. No request needs them."""

# Folders in these are the demo's or its libraries'. Other variables are nobody's business here.
_DEMO_PREFIXES = ("TT_", "HF_", "LLAMA_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH_", "XDG_")


def demo_script(setup: Setup) -> Finding:
    """Whether the demo home has the demo."""
    return ok(str(home.script(setup.settings)))


def tilde(setup: Setup) -> Finding:
    """Whether a setting or a variable of the demo still starts with ``~``."""
    found = dict(_unexpanded(setup.settings))
    if not found:
        return ok("No setting and no variable of the demo starts with an unexpanded ~.")
    name, value = next(iter(found.items()))
    by_hand = (
        " The server expands it; the demo started by hand does not." if set(found) <= {"LLAMA_DIR", "HF_MODEL"} else ""
    )
    return warning(
        f"The ~ is not expanded in {', '.join(f'{name}={value}' for name, value in found.items())}.{by_hand}",
        f"Write the whole path: {name}={_expanded(value)}",
    )


def model(setup: Setup) -> Finding:
    """Which model variable the child gets."""
    settings = setup.settings
    variable, value = home.model_variable(settings)
    gets = f"The child gets {variable}={value}."
    if settings.is_cpu_demo:
        return ok(gets)
    both = settings.llama_dir is not None and settings.hf_model is not None
    if not home.reads_llama_dir(settings):
        unread = " LLAMA_DIR is set too, and is not read." if both else ""
        return ok(f"This checkout reads HF_MODEL only. {gets}{unread}")
    if both:
        return warning(
            f"LLAMA_DIR and HF_MODEL are both set. {gets} The demo started by hand refuses to run with both.",
            "Unset the one that you do not need.",
        )
    return ok(f"This checkout reads LLAMA_DIR or HF_MODEL. {gets}")


def generation(setup: Setup) -> Finding:
    """Roughly how old the checkout's demo is, and which of its features the server uses."""
    settings = setup.settings
    home.script(settings)  # a demo home without it is none
    lists, seed = home.takes_lists(settings), home.takes_seed(settings)
    if home.reads_llama_dir(settings):
        time = "before 25 November 2025"
    elif seed:
        time = "February 2026 or later"
    else:
        time = "December 2025 or January 2026" if lists else "the end of November 2025"
    given = "a list with a value for each prompt" if lists else "one value for all prompts"
    declared = source.declared_options(settings.demo_home)
    unused = ", ".join(name for name in LATER_OPTIONS if name in declared)
    return ok(
        f"The demo looks like the version of {time}: temperature and top_p are passed as {given}, a seed is "
        f"{'passed on' if seed else 'refused'}." + (f" It has {unused} too, which stay as they are." if unused else "")
    )


def options(setup: Setup) -> Finding:
    """Which options this checkout's conftest files declare, and of which type."""
    home.script(setup.settings)  # a demo home without it is none
    declared = source.declared_options(setup.settings.demo_home)
    missing = [name for name in NEEDED_OPTIONS if name not in declared]
    if missing:
        return warning(
            f"No conftest.py of the demo home seems to declare {', '.join(missing)}; then pytest refuses to start.",
            "Use a checkout of July 2025 or later, with its own conftest.py files.",
        )
    kind = declared.get("--sampling_params")
    if kind == "dict":
        return ok(
            "--sampling_params has type=dict, which refuses every text on a command line, yours too; the server's "
            "plugin passes temperature and top_p instead.",
        )
    return ok(f"All options that the server passes are declared; --sampling_params has type={kind}.")


def ci(setup: Setup) -> Finding:
    """Whether a variable makes the demo skip its test."""
    for device in setup.settings.devices:
        skips = _skips(device.environment)
        if skips:
            return error(
                f"DEMO_API_DEVICES sets {skips} for the device {device.name}: the demo skips its test there.",
                f"Take {skips} out of DEMO_API_DEVICES.",
            )
    skips = _skips(setup.settings.inherited)
    if skips:
        return warning(
            f"{skips} is set: the demo started by hand skips its test and exits with 0. "
            "The server's child does not get it.",
            f"Unset {skips.partition('=')[0]} before you start the demo by hand.",
        )
    return ok("Neither CI=true nor TT_GH_CI_INFRA is set.")


def _skips(variables: Mapping[str, str]) -> str | None:
    if variables.get("CI") == "true":
        return "CI=true"
    return f"TT_GH_CI_INFRA={variables['TT_GH_CI_INFRA']}" if "TT_GH_CI_INFRA" in variables else None


def _expanded(value: str) -> str:
    try:
        return " ".join(str(Path(word).expanduser()) for word in shlex.split(value))
    except (RuntimeError, ValueError):  # ~nobody, or an open quote
        return "/..."


def _unexpanded(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, value in settings.inherited.items():
        if name.startswith(_DEMO_PREFIXES) and value.startswith("~"):
            yield name, value
    for device in settings.devices:
        for name, value in device.environment.items():
            if value.startswith("~"):
                yield name, value
    for name, command in (
        ("DEMO_API_RESET_COMMAND", settings.reset_command),
        ("DEMO_API_RESET_CHECK", settings.reset_check),
    ):
        if command and any(word.startswith("~/") for word in shlex.split(command)):
            yield name, command
