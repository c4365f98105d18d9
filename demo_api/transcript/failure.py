"""Why a run failed: one code and one sentence, from the exit code and from what pytest, Python and C++ printed."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from demo_api.messages import Failure
from demo_api.transcript.report import Report

_LONGEST_MESSAGE = 500
# Signals by which somebody stops a child; by any other one it crashed.
_STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM)
# Escape sequences whole; whatever else moves a cursor, ends a line or cannot be encoded is not printable.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: ")


def explain(
    exit_code: int, report: Report, stderr: Report, logged: str | None, missing: int, prompts: Sequence[str]
) -> Failure | None:
    """Why the run has no success; None if it has.

    Args:
        exit_code: of pytest, negative if a signal ended it.
        report: of the stream that has pytest's report.
        stderr: of stderr, where pytest complains before it has a terminal to report to.
        logged: the last message of level ERROR or CRITICAL.
        missing: how many prompts have no answer.
        prompts: their texts are left out of the message.
    """
    if exit_code == 0 and not missing and report.passed:
        return None
    cause = _cause(report, stderr, logged)
    code, sentence, cause = _ending(exit_code, report, stderr, cause, missing, len(prompts))
    return Failure(code, _message(sentence, cause, prompts))


def _ending(
    exit_code: int, report: Report, stderr: Report, cause: str, missing: int, asked: int
) -> tuple[str, str, str]:
    """Code, sentence and cause by what pytest's exit codes mean, and by the transcript where they do not decide."""
    interrupted = report.banner is not None
    if exit_code < 0:
        return _signalled(-exit_code, report, stderr)
    if exit_code == 0:
        return _no_success(report, missing, asked)
    if exit_code > 5 or (report.passed and not interrupted and not report.internal_error):
        after = " after its test had passed" if report.passed else ""
        return "crashed", f"The child left with exit code {exit_code}{after}", stderr.fatal or stderr.uncaught or ""
    if exit_code == 1:
        return "demo_failed", "" if cause else "The demo failed without a reason (exit code 1)", cause
    if exit_code == 2:
        return _interrupted(report, cause)
    if exit_code == 3:
        return "internal_error", "pytest broke down", report.internal_error or stderr.internal_error or cause
    if exit_code == 4:
        usage = stderr.usage_error or report.usage_error or ""
        return "usage_error", "pytest refused to start", cause if not usage or usage.startswith("usage: ") else usage
    if report.skipped and (report.counts or {}).get("skipped"):
        return "skipped", "The demo was skipped", report.skipped
    return "no_tests", "pytest found no test to run", cause


def _signalled(number: int, report: Report, stderr: Report) -> tuple[str, str, str]:
    try:
        name, meaning = signal.Signals(number).name, signal.strsignal(number)
    except ValueError:  # no number of a signal, or of a realtime one
        name, meaning = f"signal {number}", None
    if number in _STOPPING:
        return "interrupted", f"The child was stopped by {name}", ""
    cause = ". ".join(text for text in (stderr.fatal or report.fatal, stderr.uncaught or report.uncaught) if text)
    after = " after its test had passed" if report.passed else ""
    return "crashed", f"The child crashed by {name}{after}", cause or meaning or ""


def _no_success(report: Report, missing: int, asked: int) -> tuple[str, str, str]:
    """Exit code 0 alone proves nothing."""
    counts = report.counts or {}
    if counts.get("skipped") and not counts.get("passed"):
        return "skipped", "The demo was skipped", report.skipped or "pytest gave no reason"
    if missing:
        return "no_answer", f"The child ended without an answer to {missing} of {asked} prompts", ""
    return "no_answer", "The child answered, but pytest did not report that the test passed", ""


def _interrupted(report: Report, cause: str) -> tuple[str, str, str]:
    banner = report.banner or ""
    counts = report.counts or {}
    collecting = "during collection" in banner or (not banner and ("error" in counts or "errors" in counts))
    if collecting:
        return "collection_error", "The demo could not be loaded", cause or banner
    return "interrupted", "The run was interrupted", banner.removeprefix("_pytest.outcomes.").replace("Exit: ", "")


def _cause(report: Report, stderr: Report, logged: str | None) -> str:
    """The best reason there is: a traceback's last lines, else what was logged, else the last exception's line."""
    lines = report.cause() or stderr.cause()
    if lines:
        return _reason(lines)
    if report.timed_out or stderr.timed_out:
        return "pytest-timeout ended the process"
    return logged or report.exception or stderr.exception or ""


def _reason(lines: Sequence[str]) -> str:
    """The lines of one exception as one, without the C++ backtrace and without pytest's view of an assertion."""
    kept: list[str] = []
    for line in lines:
        if line == "backtrace:" or (kept and line.startswith(("assert ", "+  where ", "+ where "))):
            break
        kept.append(line)
    if len(kept) > 1 and kept[0].startswith('File "'):
        return (
            kept[-1] if _EXCEPTION.match(kept[-1]) else " ".join(kept)
        )  # a SyntaxError shows the file and the line first
    return " ".join(kept)


def _message(sentence: str, cause: str, prompts: Sequence[str]) -> str:
    cause = one_line(cause)
    for prompt in prompts:
        quoted = one_line(prompt)
        if len(quoted) > 20:
            cause = cause.replace(quoted, "[the prompt]")
    room = _LONGEST_MESSAGE - len(sentence) - len(": .")
    if len(cause) > room:
        # What was wrong stands first, unless a long path does: so the end is worth some room too.
        cause = f"{cause[: room * 2 // 3]} ... {cause[-(room // 3 - 5) :]}"
    text = ": ".join(part for part in (sentence, cause) if part)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def one_line(text: str) -> str:
    """The text without escape sequences, what is not printable, and runs of blanks."""
    shown = (each if each.isprintable() else " " for each in _ESCAPES.sub("", text))
    return " ".join("".join(shown).split())
