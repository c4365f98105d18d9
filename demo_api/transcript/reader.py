"""The reader of a whole transcript, live or from files: both ways run the same code, so that they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from demo_api.messages import Answer, Event, Failure, Metrics
from demo_api.transcript.demo_log import Phase
from demo_api.transcript.failure import explain
from demo_api.transcript.lines import LineSplitter
from demo_api.transcript.record_reader import RecordReader
from demo_api.transcript.report import Report


@dataclass(frozen=True)
class Reading:
    """What a whole transcript says.

    Attributes:
        status: ``succeeded`` (exit code 0, an answer for every prompt and a passed test) or ``failed``.
        error: why it failed; None if it succeeded.
        answers: of users 0, 1, ... up to the first whose answer is missing.
        metrics: the demo's own figures.
        phases: those that began, in order.
        waiting_at: when a child that was started ahead began to wait, Unix seconds; None if it did not.
        model_was_kept: whether the demo was given a model that the child had loaded for an earlier batch.
        ended_first: users whose first token was the end of their answer, whatever the demo printed after that.
        demo_device: the device as the demo calls it, such as ``N150``; None if it did not say.
        demo_model: the model as the demo calls it; None if it did not say.
        iterations: decode iterations seen.
        all_answered: whether there is an answer for every prompt.
    """

    status: str
    error: Failure | None
    answers: list[Answer]
    ended_first: frozenset[int]
    metrics: Metrics
    phases: list[Phase]
    waiting_at: float | None
    model_was_kept: bool
    demo_device: str | None
    demo_model: str | None
    iterations: int
    all_answered: bool

    def as_dict(self) -> dict[str, object]:
        """What ``demo-api parse`` prints, ready for JSON."""
        keys = ("status", "error", "answers", "metrics", "demo_device", "demo_model")
        whole = asdict(self)
        return {key: whole[key] for key in keys}


class _Stream:
    """One stream of the child: each line goes to a reader of the demo's log and to one of pytest's report."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.empty = True
        self.records = RecordReader(prompts)
        self.report = Report()
        self._lines = LineSplitter()

    def feed(self, chunk: bytes) -> list[Event]:
        self.empty = self.empty and not chunk
        events: list[Event] = []
        for line in self._lines.feed(chunk):
            if line is None:
                self.records.demo_log.lose()
                continue
            self.report.feed(line)
            events += self.records.feed(line)
        return events

    def flush(self) -> bytes:
        """The last line, if it has no newline."""
        rest = self._lines.flush() or b""
        self.report.feed(rest)
        return rest


class Reader:
    """Reads one transcript as it grows. No bytes make it raise, and its memory is bounded whatever the child prints.

    The demo's log is on stderr and pytest's report on stdout, unless the streams were merged or pytest captured them:
    then one stream is empty and all is on the other.

    Args:
        prompts: those of the batch, in order; an answer is recognised by the prompt that stands before it.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = list(prompts)
        self._stdout = _Stream(self._prompts)
        self._stderr = _Stream(self._prompts)
        self._streams = {"stdout": self._stdout, "stderr": self._stderr}

    def feed(self, stream: str, chunk: bytes) -> list[Event]:
        """Takes in what was printed next on a stream, cut anywhere.

        Args:
            stream: ``stdout`` or ``stderr``.

        Returns:
            the events that it tells of.
        """
        events = self._streams[stream].feed(chunk)
        return [] if stream == "stdout" and self._stderr.records.has_records else events

    @property
    def waiting_at(self) -> float | None:
        """When a child that was started ahead began to wait, Unix seconds; None while it did not."""
        return self._stderr.records.demo_log.waiting_at

    @property
    def exit_code(self) -> int | None:
        """Pytest's, of a child that stays for further batches; None while this one has not ended."""
        return self._stderr.records.exit_code

    def finish(self, exit_code: int) -> Reading:
        """What the whole transcript says, after the last feed.

        Args:
            exit_code: the child's, negative if a signal ended it.
        """
        rests = self._stdout.flush(), self._stderr.flush()
        report = self._stderr.report if self._stdout.empty else self._stdout.report
        # After a failed test, or where the child left in the middle of it, nothing more need follow the answers; after
        # a passed one the metrics must. A signal may have cut the log anywhere.
        ended = exit_code > 0 or (exit_code == 0 and report.counts is None)
        self._stdout.records.finish(rests[0], ended, merged=True)
        self._stderr.records.finish(rests[1], ended, merged=self._stdout.empty)
        log = self._stderr.records if self._stderr.records.has_records else self._stdout.records
        answers = log.demo_log.answers()
        missing = len(self._prompts) - len(answers)
        error = explain(exit_code, report, self._stderr.report, log.last_error, missing, self._prompts)
        return Reading(
            status="failed" if error else "succeeded",
            error=error,
            answers=answers,
            ended_first=log.demo_log.ended_first,
            metrics=log.demo_log.metrics,
            phases=self._phases(log),
            waiting_at=self.waiting_at,
            model_was_kept=self._stderr.records.model_was_kept,
            demo_device=log.demo_log.device,
            demo_model=log.demo_log.model,
            iterations=log.demo_log.iterations,
            all_answered=not missing,
        )

    def _phases(self, log: RecordReader) -> list[Phase]:
        # Where pytest captured the demo's log, our plugin's record is still on stderr.
        early = [] if log is self._stderr.records else self._stderr.records.demo_log.phases
        return early + [phase for phase in log.demo_log.phases if phase.name not in {phase.name for phase in early}]


def parse(prompts: Sequence[str], stdout: Iterable[bytes], stderr: Iterable[bytes], exit_code: int) -> Reading:
    """Reads a whole transcript.

    Args:
        prompts: those of the batch, in order.
        stdout: what the child printed there, in chunks cut anywhere.
        stderr: likewise.
        exit_code: the child's, negative if a signal ended it.
    """
    reader = Reader(prompts)
    for chunk in stderr:
        reader.feed("stderr", chunk)
    for chunk in stdout:
        reader.feed("stdout", chunk)
    return reader.finish(exit_code)
