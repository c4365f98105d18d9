"""Checks of the child's interpreter, its packages, and whether pytest collects the demo there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from demo_api.cli.doctor import probe
from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.machine_checks import in_use
from demo_api.cli.doctor.probe import MOST_SHOWN, Probe, Said, Setup
from demo_api.config import Settings
from demo_api.demo import command, home
from demo_api.demo.model_shape import shape_of
from demo_api.devices.lock import DeviceLock, devices_of
from demo_api.devices.warm import end_waiting_child
from demo_api.process.output import printable
from demo_api.web.parse import check_request

COLLECT_SECONDS = 120.0
"""How long collecting may take: with ttnn the imports alone take many seconds."""

_OLDEST_PYTHON = (3, 8)
_OLDEST_PYTEST = 7
_COLLECTED = re.compile(r"^(?:=+ )?(?:(\d+)(?:/\d+)? tests?|(no) tests) collected", re.M)  # pytest 7 to 9


def interpreter(setup: Setup) -> Finding:
    """Whether the child's interpreter can be run."""
    child = setup.child()
    version = ".".join(map(str, child.version))
    if child.version < _OLDEST_PYTHON:
        return error(
            f"{child.python} is Python {version}, and the server's plugin needs 3.8 or later.",
            "Set DEMO_API_PYTHON to the Python that tt-metal was installed into.",
        )
    return ok(f"{child.python}, Python {version}")


def packages(setup: Setup) -> Finding:
    """Whether the child has what the demo imports first: its pytest, loguru, and the rest."""
    child = setup.child()
    missing = sorted(name for name, version in child.modules.items() if version is None and name != "numpy")
    if missing:
        how = "pip install 'demo-api[cpu]'" if setup.settings.is_cpu_demo else "install tt-metal's requirements there"
        sentence = f"The demo needs {', '.join(missing)}, which {child.python} does not have."
        return error(sentence, f"Activate its environment and {how}.")
    pytest = child.modules["pytest"] or ""
    if _major(pytest) < _OLDEST_PYTEST:
        sentence = f"The child's pytest is {pytest}, and the server's plugin needs {_OLDEST_PYTEST} or later."
        return error(sentence, f"Run `{child.python} -m pip install 'pytest>={_OLDEST_PYTEST}'`.")
    known = [f"{name} {version}" for name, version in sorted(child.modules.items()) if version not in (None, "unknown")]
    return ok(", ".join(known))


def models_import(setup: Setup) -> Finding:
    """Whether the child finds the demo home's ``models.tt_transformers``."""
    child, demo_home = setup.child(), setup.settings.demo_home
    home.script(setup.settings)  # a demo home without it is none
    folders, origin = child.models["folders"], child.models["origin"]
    if any(Path(folder).resolve().is_relative_to(demo_home.resolve()) for folder in folders):
        return ok(f"models.tt_transformers is found in {demo_home}.")
    if origin is not None:
        return _hidden(child, setup.settings)
    if folders:
        sentence = f"models.tt_transformers comes from {folders[0]}, not from the demo home {demo_home}."
        return error(sentence, f"Remove that folder from the module search path of {child.python}.")
    reason = child.models["error"] or f"it is not below {demo_home}"
    sentence = f"models.tt_transformers cannot be imported: {printable(str(reason)[:MOST_SHOWN])}."
    return error(sentence, "Point DEMO_API_DEMO_HOME at the root of a whole tt-metal checkout.")


def _hidden(child: Probe, settings: Settings) -> Finding:
    origin, owners = child.models["origin"], child.models["owners"]
    which = f" of {' and '.join(owners)}" if owners else ""
    sentence = f"The package models{which} hides the demo home's models.tt_transformers: {origin}"
    if not owners:
        return error(sentence, f"Remove that folder from the module search path of {child.python}.")
    again = "" if settings.is_cpu_demo else ", then install tt-metal's requirements again: they have its own fork"
    return error(sentence, f"Run `{child.python} -m pip uninstall {' '.join(owners)}`{again}.")


def numpy(setup: Setup) -> Finding:
    """Whether the child's numpy is the one that tt-metal wants."""
    child = setup.child()
    version = child.modules["numpy"]
    if version is not None and 0 <= _major(version) < 2:
        return ok(version)
    found = "there is none" if version is None else f"this one is {version}"
    install = f"Run `{child.python} -m pip install 'numpy<2'`."
    return warning(f"tt-metal wants numpy<2 in the child's interpreter, and {found}.", install)


def _major(version: str) -> int:
    number = re.match(r"\d+", version)
    return int(number.group()) if number else _OLDEST_PYTEST  # unknown: it is there, so believe in it


def collection(setup: Setup) -> Finding:
    """Whether the server's ``-k`` selects exactly one test. With ttnn, collecting opens the device."""
    settings = setup.settings
    setup.child()  # without an interpreter, or a script, there is nothing to collect
    home.script(settings)
    if settings.is_cpu_demo:
        return _collect(setup, {}, None)
    if not setup.collect:
        return warning(
            "Not tried: with ttnn, collecting the demo's tests opens the device.",
            "Run `demo-api doctor --collect` while nothing uses the device.",
        )
    for device in devices_of(settings):  # no run needs a child that only waits
        end_waiting_child(device, grace=settings.stop_grace)
    used_by = in_use(setup)
    if used_by:
        sentence = f"Not tried: the device is in use by {', '.join(used_by)}."
        return warning(sentence, "Run this again when it is free.")
    device = devices_of(settings)[0]
    # Locked as for a run, so that none starts meanwhile; but where no server ever ran, no lock is made.
    if not _locks_exist(setup):
        return _collect(setup, device.environment, None)
    lock = device.try_lock(keeps_share=True)
    if lock is None:
        return warning("Not tried: a run has just begun.", "Run this again when it has ended.")
    with lock:
        return _collect(setup, device.environment, lock)


def _locks_exist(setup: Setup) -> bool:
    name, folder = setup.settings.devices[0].name, setup.settings.state_dir
    return all((folder / f"{name}{ending}").is_file() for ending in (".lock", ".server.lock"))


def _collect(setup: Setup, selection: Mapping[str, str], lock: DeviceLock | None) -> Finding:
    settings = setup.settings
    request = check_request({"prompt": "Hello"})
    with probe.work_folder() as folder:
        folder.write([request.prompt], command.plugin_config("doctor", folder.path.name))
        demo = probe.demo_of(settings, folder)
        options = command.options(shape_of([request], demo.context_length), request, folder)
        spec = command.launch_spec(demo, selection, folder, options)
        argv = [*spec.argv, "--collect-only", "-p", "no:cacheprovider"]
        said = probe.listen(
            argv,
            setup,
            folder,
            seconds=COLLECT_SECONDS,
            grace=settings.stop_grace,
            selection=selection,
            pass_fds=() if lock is None or lock.fd is None else (lock.fd,),
        )
    return _collected(said)


def _collected(said: Said) -> Finding:
    if said.stopped:
        sentence = f"Collecting the demo's tests took longer than {COLLECT_SECONDS:g} s and was stopped."
        by_hand = "Run the demo by hand with --collect-only to see where it hangs; a device that it opened may need a"
        return error(sentence, f"{by_hand} reset.")
    counts = _COLLECTED.findall(said.stdout)
    if said.exit_code not in (0, 5) or not counts:
        reasons = re.findall(r"^E +(.+)", said.stdout + said.stderr, re.M)
        reason = printable(reasons[0][:MOST_SHOWN]) if reasons else said.last_words()
        sentence = f"pytest could not collect the demo's tests (exit code {said.exit_code}): {reason}"
        return error(sentence, "Fix that; run the demo by hand with --collect-only to see the whole output.")
    number = int(counts[-1][0] or 0)
    if number == 1:
        return ok("-k performance-batch-1 selects exactly one test.")
    sentence = f"-k performance-batch-1 selects {number or 'no'} tests, and the server needs exactly one."
    return error(sentence, "Use a checkout whose demo has one test of that name.")
