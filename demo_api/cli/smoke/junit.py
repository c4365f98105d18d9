"""Writes a JUnit report, as Jenkins, GitLab and GitHub's actions read it.

The standard library's XML does it in few lines. What XML forbids must be kept out by hand, with junitparser too, so
that package would add nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree  # to write, and not to read # nosec B405

from demo_api.cli.smoke.checks import COULD_NOT_RUN, FAILED, Check
from demo_api.cli.visible import shortened

# What XML 1.0 allows, without the control characters that it allows but advises against, and without the carriage
# return, which every reader turns into a newline.
_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]")
_SUITE = "demo-api smoke"
_KINDS = {FAILED: "failure", COULD_NOT_RUN: "error"}


def write(path: Path, checks: Sequence[Check], *, seconds: float) -> None:
    """Writes the report: one test suite, with a case for each check.

    Args:
        seconds: wall time of all together.

    Raises:
        OSError: it cannot be written.
    """
    kinds = [_KINDS.get(check.status) for check in checks]
    counts = {
        "tests": str(len(checks)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": _SUITE, **counts})
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ElementTree.SubElement(root, "testsuite", {"name": _SUITE, **counts, "skipped": "0", "timestamp": now})
    seen: Counter[str] = Counter()
    for check in checks:
        name = shortened(check.entry.prompt.replace("\n", " "))
        seen[name] += 1
        number = f" ({seen[name]})" if seen[name] > 1 else ""  # CI systems tell cases apart by their names
        _add(suite, legal(name) + number, check)
    ElementTree.indent(root)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def legal(text: str) -> str:
    """The text with what XML forbids shown as Python writes it: ``\\\\x1b``."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _add(suite: ElementTree.Element, name: str, check: Check) -> None:
    # Checks that ran together have the same time.
    attributes = {"classname": _SUITE, "name": name, "time": f"{check.reply.time_seconds or 0.0:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    kind, output = _KINDS.get(check.status), check.reply.response
    if kind is not None:
        reason = " ".join(check.reasons)
        problem = ElementTree.SubElement(case, kind, {"message": legal(reason), "type": kind})
        problem.text = legal(f"{reason}\n{output or ''}")  # GitLab shows the text, others the message
    if output:
        ElementTree.SubElement(case, "system-out").text = legal(output)
