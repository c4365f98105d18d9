"""Writes a JUnit report, as Jenkins, GitLab and GitHub's actions read it.

The standard library's XML does it in few lines. What XML forbids must be kept out by hand, with junitparser too, so
that package would add nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree  # to write, and not to read # nosec B405

# What XML 1.0 allows, without the control characters that it allows but advises against, and without the carriage
# return, which every reader turns into a newline.
_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]")


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: one with a name that was there before gets a number, because CI systems tell cases apart by their names.
        seconds: wall time; cases that ran together have the same.
        failure: why what is tested is broken; None if it is not.
        error: why it could not be tested; None if it was.
        output: shown with the case, whatever became of it.
    """

    name: str
    seconds: float
    failure: str | None = None
    error: str | None = None
    output: str = ""


def write(path: Path, suite: str, cases: Sequence[Case], *, seconds: float) -> None:
    """Writes the report.

    Args:
        suite: the name of the one test suite in it.
        seconds: wall time of all together.

    Raises:
        OSError: it cannot be written.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.failure is not None for case in cases)),
        "errors": str(sum(case.error is not None for case in cases)),
    }
    root = ElementTree.Element("testsuites", {"name": suite, **counts, "time": f"{seconds:.3f}"})
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    attributes = {"name": suite, **counts, "skipped": "0", "time": f"{seconds:.3f}", "timestamp": now}
    element = ElementTree.SubElement(root, "testsuite", attributes)
    seen: Counter[str] = Counter()
    for case in cases:
        seen[case.name] += 1
        number = f" ({seen[case.name]})" if seen[case.name] > 1 else ""
        _add(element, case, suite, legal(case.name) + number)
    ElementTree.indent(root)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def legal(text: str) -> str:
    """The text with what XML forbids shown as Python writes it: ``\\\\x1b``."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _add(suite: ElementTree.Element, case: Case, classname: str, name: str) -> None:
    attributes = {"classname": classname, "name": name, "time": f"{case.seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    for kind, reason in (("failure", case.failure), ("error", case.error)):
        if reason is not None:
            problem = ElementTree.SubElement(element, kind, {"message": legal(reason), "type": kind})
            problem.text = legal(f"{reason}\n{case.output}")  # GitLab shows the text, others the message
    if case.output:
        ElementTree.SubElement(element, "system-out").text = legal(case.output)
