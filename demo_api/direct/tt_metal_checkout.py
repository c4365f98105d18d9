"""A tt-metal checkout in this process: the device, the modules, and the variable that names the model."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_api.config import Settings
from demo_api.demo import home
from demo_api.devices.lock import DeviceLock, devices_of
from demo_api.devices.warm import end_waiting_child
from demo_api.errors import DemoApiError, SetupError

logger = logging.getLogger(__name__)

TRACE_REGION_BYTES = 30_000_000
"""As the demo opens its device (``device_params`` of ``simple_text_demo.py``, July 2025)."""

_OWN_PYTHON = (
    "Install demo_api into tt-metal's environment and start the server with its Python (python_env/bin/python -m "
    "demo_api serve): docs/hardware.md says how."
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


def lock_device(settings: Settings) -> DeviceLock:
    """Takes the first of the server's devices for good, so that no run of the demo begins on it.

    Raises:
        SetupError: a run, or another server, has it.
    """
    device = devices_of(settings)[0]
    with setup_step(f"The lock of the device {device.name!r} cannot be taken", "Look at DEMO_API_STATE_DIR."):
        device.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        end_waiting_child(device, grace=settings.stop_grace)
        lock = device.try_lock(keeps_share=True)
    if lock is not None and lock.others_serve:
        lock.__exit__(None, None, None)
        lock = None
    if lock is None:
        raise SetupError(
            f"The device {device.name!r} is in use by a run of the demo or by another server.",
            next_step="Wait for its end (`demo-api device status`), or stop the other server; then start this one.",
        )
    os.environ.update(device.environment)  # ttnn looks there for TT_VISIBLE_DEVICES
    return lock


def import_checkout(settings: Settings) -> Checkout:
    """Makes this process one that can run the demo home's model, and imports what is needed for it.

    Changes ``sys.path`` and ``os.environ``, for good: a process can have one checkout only.

    Raises:
        SetupError: no model is set, something cannot be imported, or another package hides the checkout's.
    """
    variable, model = home.model_variable(settings)
    _name_model(settings, variable, model)
    if str(settings.demo_home) not in sys.path[:1]:
        sys.path.insert(0, str(settings.demo_home))
    with setup_step("tt-metal cannot be imported here", _OWN_PYTHON):
        torch, ttnn = importlib.import_module("torch"), importlib.import_module("ttnn")
        _check_models_package(settings.demo_home)
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
        SetupError: there is none, or it cannot be opened.
    """
    ttnn = checkout.ttnn
    with setup_step("The device cannot be opened", _LOOK_AT_DEVICE):
        return ttnn.open_mesh_device(
            mesh_shape=ttnn.MeshShape(1, 1),
            trace_region_size=TRACE_REGION_BYTES,
            num_command_queues=1,
            dispatch_core_config=ttnn.DispatchCoreConfig(),
        )


def close_device(checkout: Checkout, device: Any) -> None:
    """Closes what ``open_device`` has opened. A failure is only logged: it comes when nobody waits any more."""
    try:
        checkout.ttnn.close_mesh_device(device)
    except Exception:
        logger.exception("the device was not closed; reset it with `tt-smi -r` before anything else opens it")


@contextmanager
def setup_step(what: str, next_step: str) -> Iterator[None]:
    """Makes a SetupError of whatever fails inside.

    Args:
        what: the beginning of the sentence; the reason follows.
    """
    try:
        yield
    except DemoApiError:
        raise
    except Exception as error:
        # Which step notices depends on the version of ttnn.
        nowhere = "No chips detected" in str(error)
        raise SetupError(f"{what}: {reason(error)}.", next_step=_LOOK_AT_DEVICE if nowhere else next_step) from error


def reason(error: Exception) -> str:
    """An exception in one line. TT_FATAL's are pages long: file, condition, information, backtrace."""
    line = " ".join(str(error).partition("backtrace:")[0].split()).rstrip(".")
    if len(line) > _LONGEST_REASON:
        line = f"{line[:_LONGEST_REASON]}..."
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _name_model(settings: Settings, variable: str, model: str) -> None:
    # Elsewhere only config.py touches os.environ, and children get an environment of their own. Here the checkout runs
    # in this process and looks for its model with os.getenv. One of 2025 asserts that only one of the two is set.
    os.environ.pop("HF_MODEL" if variable == "LLAMA_DIR" else "LLAMA_DIR", None)
    os.environ[variable] = model
    if variable == "HF_MODEL":
        # Else the converted weights, gigabytes that take minutes to make, go into the working directory. There the
        # demo, which runs in its home, would not find them.
        os.environ.setdefault("TT_CACHE_PATH", str(settings.demo_home / "model_cache" / model))


def _check_models_package(demo_home: Path) -> None:
    try:
        models = importlib.import_module("models")
    except ModuleNotFoundError as error:
        if error.name != "models":
            raise
        raise SetupError(
            f"The demo home {demo_home} has no folder `models`.",
            next_step="Point --demo-home (DEMO_API_DEMO_HOME) at the root of a tt-metal checkout.",
        ) from None
    # tt-metal's folder has no __init__.py, so a package of that name wins from anywhere on the path.
    folders = list(getattr(models, "__path__", ())) or [str(models.__file__)]
    if demo_home.resolve() / "models" not in [Path(folder).resolve() for folder in folders]:
        raise SetupError(
            f"Another package named `models` hides tt-metal's: {folders[0]}.",
            next_step="If it came with llama-models, `pip uninstall llama-models` and install tt-metal's requirements "
            "again: they pin a fork of it without that package.",
        )
