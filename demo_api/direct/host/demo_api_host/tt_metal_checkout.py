"""A tt-metal checkout in this process: its modules, and its device."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .protocol import Failed, ModelError

logger = logging.getLogger(__name__)

TRACE_REGION_BYTES = 30_000_000
"""As the demo opens its device (``device_params`` of ``simple_text_demo.py``, July 2025)."""

_OWN_PYTHON = (
    "The model runs on the demo home's python_env/bin/python or, if there is none, on DEMO_API_PYTHON: set that to the "
    "Python that tt-metal was installed into."
)
_LOOK_AT_DEVICE = (
    "See that `tt-smi -s` lists the device and that nothing else holds it; if so, reset it with `tt-smi -r` and start "
    "the server again."
)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Checkout:
    """The modules that the direct engine uses of torch, ttnn and ``models/tt_transformers/tt``."""

    torch: Any
    ttnn: Any
    common: Any
    generator: Any
    model_config: Any


def import_checkout(demo_home: str) -> Checkout:
    """Imports what is needed for the demo home's model.

    Raises:
        Failed: something cannot be imported, or another package hides the checkout's.
    """
    with setup_step("tt-metal cannot be imported here", _OWN_PYTHON):
        torch, ttnn = importlib.import_module("torch"), importlib.import_module("ttnn")
        _check_models_package(Path(demo_home))
        common, generator, model_config = (
            importlib.import_module(f"models.tt_transformers.tt.{name}")
            for name in ("common", "generator", "model_config")
        )
    return Checkout(torch, ttnn, common, generator, model_config)


def open_device(checkout: Checkout) -> Any:
    """Opens a mesh of one chip, as the demo's ``mesh_device`` fixture does with MESH_DEVICE=N150.

    For one chip the fixture sets no fabric (``models/tt_transformers/conftest.py``), so there is none to reset. The
    dispatch cores are ttnn's default for the machine, which is what the fixture asks for too.

    Raises:
        Failed: there is none, or it cannot be opened.
    """
    ttnn = checkout.ttnn
    with setup_step("The device cannot be opened", _LOOK_AT_DEVICE):
        return ttnn.open_mesh_device(
            mesh_shape=ttnn.MeshShape(1, 1),
            trace_region_size=TRACE_REGION_BYTES,
            num_command_queues=1,
            dispatch_core_config=ttnn.DispatchCoreConfig(),
        )


def close_device(checkout: Checkout, device: Any) -> bool:
    """Closes what ``open_device`` has opened. Returns whether that succeeded; if not, it is logged too."""
    try:
        checkout.ttnn.close_mesh_device(device)
    except Exception:
        logger.exception("the device was not closed; reset it with `tt-smi -r` before anything else opens it")
        return False
    return True


@contextmanager
def setup_step(what: str, next_step: str) -> Iterator[None]:
    """Makes a ModelError of whatever fails inside.

    Args:
        what: the beginning of the sentence; the reason follows.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        # Which step notices depends on the version of ttnn.
        nowhere = "No chips detected" in str(error)
        raise Failed(f"{what}: {reason(error)}.", _LOOK_AT_DEVICE if nowhere else next_step) from error


def reason(error: Exception) -> str:
    """An exception in one line. TT_FATAL's are pages long: file, condition, information, backtrace."""
    line = " ".join(str(error).partition("backtrace:")[0].split()).rstrip(".")
    if len(line) > _LONGEST_REASON:
        line = f"{line[:_LONGEST_REASON]}..."
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _check_models_package(demo_home: Path) -> None:
    try:
        models = importlib.import_module("models")
    except ModuleNotFoundError as error:
        if error.name != "models":
            raise
        raise Failed(
            f"The demo home {demo_home} has no folder `models`.",
            "Point --demo-home (DEMO_API_DEMO_HOME) at the root of a tt-metal checkout.",
        ) from None
    # tt-metal's folder has no __init__.py, so a package of that name wins from anywhere on the path.
    folders = list(getattr(models, "__path__", ())) or [str(models.__file__)]
    if demo_home.resolve() / "models" not in [Path(folder).resolve() for folder in folders]:
        raise Failed(
            f"Another package named `models` hides tt-metal's: {folders[0]}.",
            "If it came with llama-models, `pip uninstall llama-models` and install tt-metal's requirements "
            "again: they pin a fork of it without that package.",
        )
