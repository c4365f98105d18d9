"""``python -m demo_api_host READ_FD WRITE_FD PARENT_PID``: loads a model and answers until the server has had enough.

PARENT_PID is the server's: when it dies, this process is interrupted, so that the device is closed.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

from .answers import Answers, Model
from .protocol import CHUNK, VERSION, ModelError, Writer, lines

PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def main() -> int:
    """Runs to the end. Returns the exit code: 0 if everything was closed in order, whatever came before."""
    reading, writing, parent_pid = (int(word) for word in sys.argv[1:])
    for fd in (reading, writing):
        os.set_inheritable(fd, False)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    messages = (json.loads(line) for line in lines(lambda: os.read(reading, CHUNK)))
    host = _Host(messages, Writer(writing))
    # A server started in the background of a script has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, _interrupt_once)
    with suppress(KeyboardInterrupt):
        try:
            _die_with(parent_pid)
            host.serve()
        finally:
            # The end of input and an interrupt come together when the server dies.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return host.close()


class _Host:
    def __init__(self, messages: Iterator[dict[str, Any]], writer: Writer) -> None:
        self._messages = messages
        self._writer = writer
        self._model: Model | None = None
        self._answers: Answers | None = None
        self._to_remove: list[str] = []

    def serve(self) -> None:
        """Loads the model and answers, up to the end of input."""
        with suppress(BrokenPipeError, StopIteration):
            load = next(self._messages)["load"]
            self._to_remove = load["remove"]
            try:
                self._model = _make(load["engine"], load["options"])
                self._model.load()
            except ModelError as error:
                logging.getLogger(__name__).exception("the model could not be loaded")
                self._writer.send({"error": error.as_json()})
                return
            model = self._model
            self._answers = Answers(model, self._writer)
            facts = {"name": model.name, "device": model.device, "slots": model.slots, "context": model.context}
            self._writer.send({"ready": {"version": VERSION, **facts}})
            for message in self._messages:
                self._answers.take(message)

    def close(self) -> int:
        """Ends what goes on, frees the model and closes the device. Returns the exit code."""
        if self._answers is not None:
            self._answers.close()
        is_closed = self._model is None or self._model.close()
        for path in self._to_remove if is_closed else ():
            with suppress(OSError):
                os.remove(path)
        return 0 if is_closed else 1


def _make(engine: str, options: dict[str, Any]) -> Model:
    # Imported here, because each has dependencies of its own.
    if engine == "llama_cpp":
        from .llama_cpp import LlamaCpp

        return LlamaCpp(**options)
    from .tt_metal import TtMetal

    return TtMetal(**options)


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    # When the server is killed the kernel hands this process from one of its dying threads to the next, with a signal
    # each time. A second interrupt would break off the clean-up, in which the device is closed, that the first began.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _die_with(parent_pid: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent_pid:  # it died before the kernel knew of our wish
        raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
