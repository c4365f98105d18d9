"""All checks, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from demo_api.cli.doctor import child_checks, demo_checks, host_checks, machine_checks, model_files
from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.setup import Setup
from demo_api.config import Settings
from demo_api.errors import SetupError

Check = Callable[[Setup], Finding | None]

CHECKS: dict[str, Check] = {
    "demo_script": demo_checks.demo_script,
    "tilde": demo_checks.tilde,
    "model": demo_checks.model,
    "model_files": model_files.model_files,
    "interpreter": child_checks.interpreter,
    "packages": child_checks.packages,
    "import": child_checks.models_import,
    "numpy": child_checks.numpy,
    "options": demo_checks.options,
    "collection": child_checks.collection,
    "ci": demo_checks.ci,
    "device_files": machine_checks.device_files,
    "device_use": machine_checks.device_use,
    "hugepages": machine_checks.hugepages,
    "tt_smi": machine_checks.tt_smi,
    "disk": host_checks.disk,
    "port": host_checks.port,
}
"""The checks by their subjects. One that makes no sense for this demo home, or that an earlier finding has made
pointless, returns None.
"""

SUBJECTS = ("settings", *CHECKS)
"""The name of every check. ``settings`` comes first: the others need them."""


def load(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> tuple[Finding, Settings | None]:
    """Reads the settings; where they are wrong, the finding is all that can be told.

    Args:
        flags: as for ``Settings.load``.
        environ: as for ``Settings.load``.
    """
    try:
        settings = Settings.load(flags, environ)
    except SetupError as problem:
        return error("settings", str(problem), problem.next_step), None
    return ok("settings", "All variables and flags have values that can be used."), settings


def examine(setup: Setup, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """Makes the checks, one after another; what one finds, or its own failure, stops no other.

    Args:
        checks: by their subjects.
    """
    for subject, check in checks.items():
        try:
            finding = check(setup)
        except Exception as failure:
            sentence = f"This check itself failed: {type(failure).__name__}: {failure}"
            finding = warning(subject, sentence, "Look at what it is about by hand; docs/doctor.md says what that is.")
        if finding is not None:
            yield finding
