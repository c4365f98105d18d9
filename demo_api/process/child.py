"""Spawns, follows and stops one child process with all of its descendants."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import psutil

from demo_api.process.output import OnOutput, OutputFiles
from demo_api.process.tree import ProcessTree

logger = logging.getLogger(__name__)

POLL_S = 0.02
"""How often the files are looked at while nothing else happens; it bounds how far a flood gets beyond its limit."""

CUTTING_S = 0.002
"""How often, once they are full: what is printed then is cut off until the child is gone."""

SNAPSHOT_S = 1.0
LINGER_S = 0.5
"""What outlives the child may take so long to leave by itself: helpers that wait for their parent's pipe need a bit."""

ASKING_S = 2.0
"""How long a child that can end what it was given without leaving may take for that, when it is asked to."""

SIGTERM_GRACE_S = 5.0
"""At most; a process that catches SIGTERM needs no more, and the demo's does not."""


@dataclass(frozen=True)
class Ended:
    """How a child and its descendants came to their end.

    Attributes:
        exit_code: negative for the signal that killed it.
        at: when it ended, ``time.monotonic()`` seconds.
        stopped: why it was stopped or its output cut; None when it ended by itself with all of its output kept.
        signals: what was sent to the child's group, in order.
        survivors_killed: descendants that outlived the child and did not leave by themselves.
        stays: whether only what it was given has ended, and the child waits for more.
    """

    exit_code: int
    at: float
    stopped: str | None
    signals: tuple[str, ...] = ()
    survivors_killed: int = 0
    stays: bool = False

    @property
    def clean(self) -> bool:
        """Whether every process could close what it held open: none was terminated, killed, or died of a signal."""
        return self.exit_code >= 0 and set(self.signals) <= {"SIGINT"} and not self.survivors_killed


class Child:
    """One child process with all of its descendants.

    It is a session of its own: a terminal's Ctrl-C and hang-up go to whole groups and sessions, and the child must
    close its device in its own time. A server that ignores SIGINT passes that on to the child, and nothing short of
    code between fork and exec could undo it; one that *handles* SIGINT does not, because exec resets handlers.

    The one that makes a Child calls ``follow``, until it has ended: only that reaps the process and closes the files.

    Args:
        env: the whole environment; the mark is added.
        stdout: a file that does not exist yet, in a folder of mode 0700.
        stderr: likewise.
        mark: an environment variable and a value that no other child has. Descendants inherit it, which is how they
            are found when they have left the session and lost their parent.
        pass_fds: file descriptors that the child inherits.
        grace: seconds that the child gets after SIGINT, in which the demo closes its device.
        waits: whether the child waits for lines on its standard input, which is otherwise at its end.

    Raises:
        OSError: it could not be started; nothing is left behind.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        mark: tuple[str, str],
        pass_fds: Sequence[int] = (),
        grace: float = 20,
        waits: bool = False,
    ) -> None:
        self._graces = ((signal.SIGINT, grace), (signal.SIGTERM, min(grace, SIGTERM_GRACE_S)))
        # A queue and no lock: stop() and hurry() may then be called from a signal handler too, and all state but
        # _ended_at belongs to the thread that follows.
        self._inbox: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._ended_at: float | None = None
        self._reason: str | None = None
        self._signals: list[str] = []
        self._grace_ends = math.inf
        self._hurried = False
        self._outlived: set[psutil.Process] = set()
        self._next_snapshot = 0.0
        with ExitStack() as undo:
            self._output = OutputFiles(stdout, stderr, undo)
            self._process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**env, mark[0]: mark[1]},
                stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
                bufsize=0,
                stdout=self._output.fd("stdout"),
                stderr=self._output.fd("stderr"),
                pass_fds=pass_fds,
                start_new_session=True,
            )
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self._tree = ProcessTree(self._process.pid, mark)
            self._waiter = threading.Thread(target=self._await_end, name=f"child-{self._process.pid}", daemon=True)
            self._waiter.start()
            undo.pop_all()

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's and its session's."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the child itself has ended; others of its tree may live."""
        return self._ended_at is not None

    @property
    def is_suspended(self) -> bool:
        """Whether a signal has stopped the child itself, so that it does nothing until it is continued."""
        return self._tree.leader_is_suspended()

    def send_line(self, line: bytes) -> None:
        """Writes a line that the child waits for. A child that is gone does not mind. To be called from any thread."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)

    def print_into(self, stdout: Path, stderr: Path) -> None:
        """What the child prints from now on is read from other files, which it opens by itself.

        Args:
            stdout, stderr: as those that it was started with.

        Raises:
            OSError: they could not be made; nothing has changed.
        """
        with ExitStack() as undo:
            output = OutputFiles(stdout, stderr, undo)
            undo.pop_all()
        self._output.close()
        self._output = output

    def listen(self, max_output: int, on_output: OnOutput) -> None:
        """Prepares ``look``; the arguments are those of ``follow``."""
        self._output.listen(max_output, on_output)

    def look(self) -> bool:
        """Passes on what the child has printed before ``follow`` is called; that passes all of it on again.

        Returns:
            whether it has printed no more than it may.
        """
        while self._output.look():
            pass
        return not self._output.full

    def stop(self, reason: str) -> None:
        """Asks ``follow`` to end the tree; the first reason counts. Returns at once, from any thread."""
        self._inbox.put(("stop", reason))

    def hurry(self) -> None:
        """Skips what is left of the current grace. Returns at once, from any thread; without effect before a stop."""
        self._inbox.put(("hurry", ""))

    def follow(
        self,
        *,
        timeout_s: float,
        max_output: int,
        on_output: OnOutput,
        exit_code: Callable[[], int | None] = lambda: None,
        ask: Callable[[], None] | None = None,
    ) -> Ended:
        """Passes on the output until every process of the tree is gone, or the child has ended what it was given.

        It has no time limit of its own for a process that even SIGKILL does not end (one stuck in a driver): whoever
        waits for the device must not get it before that process is gone.

        Args:
            timeout_s: counted from now.
            max_output: the bytes that both files may hold together; a child that prints more is stopped.
            on_output: gets ``stdout`` or ``stderr`` and the next bytes of it. Over all it gets exactly what the two
                files hold in the end. What it raises stops the tree and is raised here.
            exit_code: of what the child was given, when that has ended and the child stays.
            ask: asks the child to end what it was given without leaving; tried before any signal.
        """
        self._reason = None
        self._output.listen(max_output, on_output)
        stays = False
        try:
            stays = self._watch(time.monotonic() + timeout_s, exit_code, ask)
            if not stays:
                self._end_tree()
            while self._output.look():
                pass
        except BaseException:
            stays = False
            self._abandon()
            raise
        finally:
            if not stays:
                self._close()
        if stays:
            return Ended(exit_code() or 0, time.monotonic(), self._reason, stays=True)
        return Ended(
            exit_code=self._process.returncode,
            at=self._ended_at or time.monotonic(),
            stopped=self._stopped(),
            signals=tuple(self._signals),
            survivors_killed=len(self._outlived),
        )

    def forget(self) -> None:
        """Drops what ``stop`` and ``hurry`` were told since ``follow`` returned for a child that stays."""
        with suppress(Empty):
            while True:
                self._inbox.get_nowait()

    def _stopped(self) -> str | None:
        if self._signals:
            return self._reason
        return "output_too_large" if self._output.full else None  # a reason that came too late stopped nothing

    def _await_end(self) -> None:
        # WNOWAIT leaves the child unreaped: until follow() reaps it, its number cannot become another process's or
        # group's, and it is safe to signal. Only macOS before Python 3.13 lacks waitid.
        with suppress(ChildProcessError):
            if hasattr(os, "waitid"):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            else:
                self._process.wait()
        self._ended_at = time.monotonic()
        self._inbox.put(("ended", ""))

    def _watch(self, deadline: float, exit_code: Callable[[], int | None], ask: Callable[[], None] | None) -> bool:
        """Waits until the child is to be stopped or has ended. True: it stays, and only what it was given has ended."""

        def is_over() -> bool:
            return self.has_ended or exit_code() is not None

        self._look_until(lambda: is_over() or self._reason is not None, deadline)
        if not is_over():
            self._reason = self._reason or "timed_out"
            if ask is not None:
                ask()
                self._look_until(lambda: is_over() or self._hurried, time.monotonic() + ASKING_S)
        return exit_code() is not None and not self.has_ended

    def _end_tree(self) -> None:
        # Called once more when it was interrupted: then it goes on where it was. A second SIGINT would break off the
        # very clean-up that the first one asked for.
        for number, grace in self._graces:
            if self.has_ended:
                break
            if number.name not in self._signals:
                self._hurried = False
                self._signal_group(number)
                self._grace_ends = time.monotonic() + grace
            self._look_until(lambda: self.has_ended or self._hurried, self._grace_ends)
        if self.has_ended:
            self._end_survivors()
        else:
            self._kill_tree()

    def _end_survivors(self) -> None:
        if self._all_gone_within(LINGER_S):
            return
        self._signal_survivors(signal.SIGTERM)
        if not self._all_gone_within(LINGER_S):
            self._kill_tree()

    def _all_gone_within(self, seconds: float) -> bool:
        return self._look_until(self._tree.is_gone, time.monotonic() + seconds)

    def _kill_tree(self) -> None:
        if not self.has_ended:
            self._signal_group(signal.SIGKILL)
        patience = time.monotonic() + 5
        while not (self._all_gone_within(0) and self.has_ended):
            self._signal_survivors(signal.SIGKILL)
            self._look_until(lambda: False, time.monotonic() + POLL_S)
            if time.monotonic() > patience:
                logger.warning("processes of child %d cannot be killed: %s", self.pid, self._tree.living() or "itself")
                patience += 60

    def _signal_group(self, number: signal.Signals) -> None:
        self._tree.snapshot()  # while the parents are still there to tell whose child is whose
        self._signals.append(number.name)
        if self._process.returncode is None:  # unreaped: the group is certainly ours
            with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
                os.killpg(self._process.pid, number)
                os.killpg(self._process.pid, signal.SIGCONT)  # a suspended process takes no other signal

    def _signal_survivors(self, number: signal.Signals) -> None:
        for process in self._tree.living():
            with suppress(psutil.Error):  # psutil compares the time of creation first: never a pid's next owner
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
            self._outlived.add(process)

    def _look_until(self, done: Callable[[], bool], deadline: float) -> bool:
        while not (is_done := done()) and (left := deadline - time.monotonic()) > 0:
            behind = self._output.look()
            if self._output.full:
                self._reason = self._reason or "output_too_large"
            if time.monotonic() >= self._next_snapshot:
                self._tree.snapshot()
                self._next_snapshot = time.monotonic() + SNAPSHOT_S
            pause = 0.0 if behind else CUTTING_S if self._output.full else POLL_S
            self._hear(min(left, pause))
        return is_done

    def _hear(self, seconds: float) -> None:
        with suppress(Empty):
            word, reason = self._inbox.get(timeout=seconds)
            if word == "stop":
                self._reason = self._reason or reason
            elif word == "hurry":
                self._hurried = True

    def _abandon(self) -> None:
        self._output.mute()  # nobody listens any more, but the files stay bounded
        self._reason = self._reason or "abandoned"
        try:
            self._end_tree()
        except BaseException:  # Ctrl-C once more: no more grace
            self._kill_tree()
            raise

    def _close(self) -> None:
        if self.has_ended:
            self._waiter.join()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._output.close()
