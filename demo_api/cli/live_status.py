"""The line that `run` and `smoke` show on a terminal while the demo runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.text import Text

from demo_api.cli.visible import visible
from demo_api.messages import Event, Run
from demo_api.transcript.text_so_far import TextSoFar

_SHOWN_TEXT = 40


class LiveStatus:
    """One line: the seconds so far, what the demo does, and how the answer of the first of the runs ends.

    It is drawn anew several times a second, so the seconds go on where no event comes.

    Args:
        runs: those whose text is shown; default: none.
    """

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self._started = time.monotonic()
        self._doing = "waiting for the device"
        self._run_id = runs[0].run_id if runs else None
        self._reading = TextSoFar(runs[0].request.prompt if runs else "")
        self._answer = ""

    def __call__(self, run_id: str, event: Event) -> None:
        """Updates the line with an event of a run."""
        if event.kind == "phase":
            self._doing = str(event.data["phase"])
        elif event.kind == "progress":
            speed = event.data["tokens_per_second_per_user"]
            self._doing = f"decode: iteration {event.data['iteration']}, {speed} tokens/s"
        elif event.kind == "text" and run_id == self._run_id:
            known = event.data.get("added")
            added = self._reading.feed(str(event.data["tail"])) if known is None else str(known)
            self._answer = (self._answer + added)[-_SHOWN_TEXT:]

    def __rich__(self) -> Text:
        # As Text, because a plain string is markup to rich, and answers may hold brackets.
        seconds = f"{time.monotonic() - self._started:.0f} s"
        parts = (seconds, self._doing, visible(self._answer))
        return Text("  ".join(part for part in parts if part), no_wrap=True, overflow="ellipsis")
