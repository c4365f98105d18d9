"""One process that has the model, from its start to its end: what it is asked, what it answers, and how it was lost."""

from __future__ import annotations

import itertools
import json
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from demo_api.demo.command import MARK
from demo_api.demo.run_folder import RunFolder
from demo_api.direct.host.demo_api_host import protocol
from demo_api.direct.model import EngineLost
from demo_api.process.child import Child, Ended
from demo_api.process.output import last_line

logger = logging.getLogger(__name__)

HOST = Path(__file__).parent / "host"
"""The folder that the process's PYTHONPATH needs."""

_LOOK_S = 0.1
"""How often its output is looked at, and whether it is to be ended."""

_LEAVING_S = 1.0
"""How long a process that has closed its pipe may take to leave by itself."""

_LAST_WORDS = 8192  # bytes
_MOST_SHOWN = 300  # characters

Message = Mapping[str, Any]


class ModelProcess:
    """One process. ``close`` and ``load`` are for one thread, the one that made it; the others for any.

    Args:
        argv: the interpreter and its flags; the program is added.
        folder: for what it prints, and what marks its processes.
        lock_fd: the device's lock, which it inherits.
        max_output: bytes that it may print.
        silence: seconds without a word, while it is asked something, after which it counts as hanging.
        grace: seconds that it gets to close the device.
        on_end: called once, with a sentence, when it has ended or counts as hanging, unless ``close`` came first.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        folder: RunFolder,
        lock_fd: int | None,
        max_output: int,
        silence: float,
        grace: float,
        on_end: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self._max_output = max_output
        self._silence = silence
        self._on_end = on_end
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._replies: dict[int, SimpleQueue[Message | None]] = {}
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._lost: str | None = None
        self._closing = threading.Event()
        self._ended: Ended | None = None
        with ExitStack() as theirs, ExitStack() as ours:
            their_read, our_write = os.pipe()
            theirs.callback(os.close, their_read)
            ours.callback(os.close, our_write)
            our_read, their_write = os.pipe()
            theirs.callback(os.close, their_write)
            ours.callback(os.close, our_read)
            # The kernel interrupts it when the thread ends that has started it: one that lives as long as the model.
            self._child = Child(
                [*argv, "-m", "demo_api_host", str(their_read), str(their_write), str(os.getpid())],
                cwd=cwd,
                env=environment,
                stdout=folder.stdout,
                stderr=folder.stderr,
                mark=(MARK, folder.path.name),
                pass_fds=(their_read, their_write, *(() if lock_fd is None else (lock_fd,))),
                grace=grace,
            )
            ours.pop_all()
        self._read_fd, self._write_fd = our_read, our_write
        self._child.listen(max_output, lambda stream, chunk: None)
        # Daemons, as the thread that starts them: see DirectEngine.
        self._writer = threading.Thread(target=self._write, name="to the model", daemon=True)
        self._reader = threading.Thread(target=self._attend, name="from the model", daemon=True)
        self._writer.start()
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def left_in_order(self) -> bool:
        """Whether it has ended, and closed what it had opened."""
        ended = self._ended
        if ended is None or ended.survivors_killed or not set(ended.signals) <= {"SIGINT"}:
            return False
        # Python ends by the signal when nobody catches the interrupt: before the program began.
        return ended.exit_code in (0, -signal.SIGINT)

    @contextmanager
    def asked(self, message: Message) -> Iterator[tuple[int, Iterator[Message]]]:
        """Asks something, and gives its number and the replies as they come, without an end.

        Raises:
            EngineLost: the process has ended, or ends before the caller has the last reply, or hangs.
        """
        replies: SimpleQueue[Message | None] = SimpleQueue()
        with self._lock:
            if self._lost is not None:
                raise self._error()
            number = next(self._numbers)
            self._replies[number] = replies
        try:
            self.send({"id": number, **message})
            yield number, self._listen(replies)
        finally:
            with self._lock:
                del self._replies[number]

    def load(self, message: Message) -> Message:
        """Has it load the model. Returns its reply.

        Raises:
            EngineLost: it ended before that, or has not done it in time.
        """
        replies: SimpleQueue[Message | None] = SimpleQueue()
        with self._lock:
            if self._lost is not None:
                raise self._error()
            self._replies[0] = replies
        self.send({"load": message})
        return next(self._listen(replies))

    def send(self, message: Message) -> None:
        """Sends a message; returns at once, even if the process does not read. One that is gone does not mind."""
        self._outbox.put(protocol.encode(message))

    def stop(self) -> None:
        """Interrupts it, so that it closes the device and leaves. Returns at once."""
        self._child.stop("stopped")
        self._closing.set()

    def hurry(self) -> None:
        """Cuts short the grace in which it may do that. Returns at once."""
        self._child.hurry()

    def close(self) -> None:
        """Ends it, if need be, and waits until all of its processes are gone."""
        self.stop()
        self._reader.join()

    def _listen(self, replies: SimpleQueue[Message | None]) -> Iterator[Message]:
        while True:
            try:
                reply = replies.get(timeout=self._silence)
            except Empty:
                self._lose(f"The model's process has said nothing for {self._silence:g} s, and was ended.")
                raise self._error() from None
            if reply is None:
                raise self._error()
            yield reply

    def _error(self) -> EngineLost:
        return EngineLost(self._lost or "The model's process has ended.", str(self.folder.path))

    def _lose(self, sentence: str) -> None:
        """Fails whatever is asked; the first reason counts."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = sentence
            waiting = list(self._replies.values())
            is_wanted = self._closing.is_set()
        if not is_wanted:  # first of all, so that nobody asks any more
            self.folder.tell_lost(sentence)
            logger.error("%s Its output is in %s.", sentence, self.folder.path)
            self._on_end(sentence)
        for replies in waiting:
            replies.put(None)
        self._child.stop("lost")

    def _write(self) -> None:
        try:
            while (line := self._outbox.get()) is not None:
                view = memoryview(line)
                while view:
                    view = view[os.write(self._write_fd, view) :]
        except BrokenPipeError:
            pass  # the reader says so
        finally:
            os.close(self._write_fd)

    def _attend(self) -> None:
        """The life of the process: passes on what it says, and when it says no more, ends what is left of it."""
        try:
            for line in protocol.lines(self._read):
                self._take(json.loads(line))
        except Exception as error:  # as nothing but a damaged program would say
            self._lose(f"The model's process said what cannot be understood ({error}), and was ended.")
        is_hanging = self._lost is not None or self._closing.is_set()
        # Whoever is asked to leave, here or before, gets the grace; who has closed the pipe is about to be gone.
        self._ended = self._child.follow(
            timeout_s=0 if is_hanging else _LEAVING_S,
            max_output=self._max_output,
            on_output=lambda stream, chunk: None,
        )
        self._lose(f"The model's process ended {_how(self._ended)}: {self._last_words()}")
        self._outbox.put(None)
        self._writer.join()
        os.close(self._read_fd)

    def _read(self) -> bytes:
        """The next bytes that the process says; none when it is to be ended."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        next_look = 0.0
        while not self._closing.is_set() and self._lost is None:
            if time.monotonic() >= next_look:
                if not self._child.look():
                    self._lose(f"The model's process printed more than {self._max_output} bytes, and was ended.")
                next_look = time.monotonic() + _LOOK_S
            if poll.poll(_LOOK_S * 1000):
                return os.read(self._read_fd, protocol.CHUNK)
        return b""

    def _take(self, message: Message) -> None:
        with self._lock:
            replies = self._replies.get(message.get("id", 0))
        if replies is not None:  # else nobody wants the answer any more
            replies.put(message)

    def _last_words(self) -> str:
        text = "".join(_end(path) for path in (self.folder.stdout, self.folder.stderr))
        return last_line(text)[:_MOST_SHOWN].rstrip(".") + "."


def _how(ended: Ended) -> str:
    if ended.exit_code >= 0:
        return f"with exit code {ended.exit_code}"
    try:
        return f"by {signal.Signals(-ended.exit_code).name}"
    except ValueError:
        return f"by signal {-ended.exit_code}"


def _end(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
            return file.read().decode("utf-8", "replace")
    except OSError:  # somebody has removed it
        return ""
