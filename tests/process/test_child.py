"""Real processes that are spawned, followed and stopped; none of them is left, whatever they do."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.demo_homes import SCRIPT, make_home
from support.waiting import join, until

from demo_api.process.child import Child, Ended
from demo_api.process.tree import survivors

MIB = 2**20
HANGS = "print('ready', flush=True); time.sleep(600)"
IGNORES_SIGINT = f"signal.signal(signal.SIGINT, signal.SIG_IGN); {HANGS}"
IGNORES_BOTH = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {IGNORES_SIGINT}"
CLOSES = f"""
try:
    {HANGS}
except KeyboardInterrupt:
    time.sleep(0.5)
    print("closed", flush=True)
"""
_numbers = itertools.count()


class Listener:
    """Keeps what follow() passes on, and does something as soon as a word has been printed."""

    def __init__(self, word: bytes = b"", *actions: Callable[[], object]) -> None:
        self.heard = {"stdout": b"", "stderr": b""}
        self._word, self._actions = word, actions

    def __call__(self, stream: str, chunk: bytes) -> None:
        self.heard[stream] += chunk
        if self._actions and self._word in self.heard[stream]:
            actions, self._actions = self._actions, ()
            for action in actions:
                action()


class Spawner:
    """Makes children in one folder, each with a mark and files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks: list[tuple[str, str]] = []

    def __call__(self, code: str, **options: object) -> Child:
        return self.run([sys.executable, "-c", f"import os, signal, subprocess, sys, time\n{code}"], **options)

    def demo(self, name: str, **options: object) -> Child:
        home = make_home(self.folder / "home", name)
        prompts = self.folder / "prompts.json"
        prompts.write_text('[{"prompt": "Hello"}]')
        # With "=", or pytest takes the file for a test when it looks for the folder that its pytest.ini could be in.
        words = ["-m", "pytest", str(SCRIPT), "-k", "performance-batch-1", f"--input_prompts={prompts}", "-s"]
        return self.run([sys.executable, *words], cwd=home, **options)

    def run(self, argv: list[str], **options: object) -> Child:
        number = next(_numbers)
        self.marks.append(("DEMO_API_RUN", f"test-{os.getpid()}-{number}"))
        given = {
            "cwd": self.folder,
            "env": dict(os.environ),
            "stdout": self.folder / f"{number}.out",
            "stderr": self.folder / f"{number}.err",
            "mark": self.marks[-1],
        }
        return Child(argv, **{**given, **options})  # type: ignore[arg-type]

    def kept(self, stream: str) -> bytes:
        """What the file of the child that was made last holds."""
        return max(self.folder.glob(f"*.{stream}"), key=lambda path: int(path.stem)).read_bytes()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawner]:
    spawner = Spawner(tmp_path)
    yield spawner
    left = [process for mark in spawner.marks for process in survivors(mark[0], [mark[1]])]
    for process in left:
        process.kill()
    assert left == []


def follow(child: Child, listener: Callable[[str, bytes], None] | None = None, **options: object) -> Ended:
    return child.follow(**{"timeout_s": 60, "max_output": 100 * MIB, "on_output": listener or Listener(), **options})


def until_known_to_have_ended(child: Child) -> None:
    until(lambda: f"child-{child.pid}" not in [thread.name for thread in threading.enumerate()])


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# How a child ends


@pytest.mark.parametrize(
    ("code", "exit_code", "clean"),
    [
        pytest.param("pass", 0, True, id="exit 0"),
        pytest.param("sys.exit(42)", 42, True, id="exit 42"),
        pytest.param("os.abort()", -signal.SIGABRT, False, id="aborts"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, False, id="killed"),
    ],
)
def test_a_child_that_ends_by_itself(spawn: Spawner, code: str, exit_code: int, clean: bool) -> None:
    ended = follow(spawn(code))
    assert (ended.exit_code, ended.clean) == (exit_code, clean)
    assert (ended.stopped, ended.signals, ended.survivors_killed) == (None, (), 0)


def test_the_end_is_that_of_the_child(spawn: Spawner) -> None:
    before = time.monotonic()
    assert before + 0.5 <= follow(spawn("time.sleep(0.5)")).at <= time.monotonic()


@pytest.mark.parametrize(
    ("code", "grace", "signals", "exit_code", "clean"),
    [
        pytest.param(CLOSES, 30, ("SIGINT",), 0, True, id="SIGINT is enough"),
        pytest.param(IGNORES_SIGINT, 0.3, ("SIGINT", "SIGTERM"), -signal.SIGTERM, False, id="ignores SIGINT"),
        pytest.param(IGNORES_BOTH, 0.3, ("SIGINT", "SIGTERM", "SIGKILL"), -signal.SIGKILL, False, id="ignores both"),
    ],
)
def test_each_step_of_stopping(
    spawn: Spawner, code: str, grace: float, signals: tuple[str, ...], exit_code: int, clean: bool
) -> None:
    child = spawn(code, grace=grace)
    ended = follow(child, Listener(b"ready", lambda: child.stop("cancelled"), lambda: child.stop("too late")))
    assert (ended.signals, ended.exit_code, ended.clean) == (signals, exit_code, clean)
    assert ended.stopped == "cancelled"


def test_what_is_printed_while_stopping_is_heard(spawn: Spawner) -> None:
    child = spawn(CLOSES)
    listener = Listener(b"ready\n", lambda: child.stop("cancelled"))
    follow(child, listener)
    assert listener.heard["stdout"] == b"ready\nclosed\n"


def test_a_suspended_child_is_woken_to_take_its_signal(spawn: Spawner) -> None:
    child = spawn(f"print('suspended', flush=True); os.kill(os.getpid(), signal.SIGSTOP); {HANGS}")

    def stop_when_suspended() -> None:
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        child.stop("cancelled")

    assert follow(child, Listener(b"suspended", stop_when_suspended)).signals == ("SIGINT",)


def test_stop_before_anything_was_printed(spawn: Spawner) -> None:
    child = spawn("time.sleep(600)")
    child.stop("cancelled")
    ended = follow(child)
    assert ended.stopped == "cancelled"
    assert ended.signals in (("SIGINT",), ("SIGINT", "SIGTERM"))  # an interpreter that starts can swallow an interrupt


def test_stop_from_another_thread_wakes_a_silent_child(spawn: Spawner) -> None:
    child = spawn("time.sleep(600)")
    timer = threading.Timer(0.3, child.stop, ["cancelled"])
    timer.start()
    assert follow(child).stopped == "cancelled"
    join(timer)


def test_a_stop_that_comes_too_late_stopped_nothing(spawn: Spawner) -> None:
    child = spawn("print('done')")
    until_known_to_have_ended(child)
    child.stop("cancelled")
    ended = follow(child)
    assert (ended.stopped, ended.signals, ended.exit_code) == (None, (), 0)


def test_the_time_is_up(spawn: Spawner) -> None:
    before = time.monotonic()
    ended = follow(spawn(CLOSES), timeout_s=1)
    assert (ended.stopped, ended.signals) == ("timed_out", ("SIGINT",))
    assert 1 <= ended.at - before < 30


def test_hurry_skips_one_grace(spawn: Spawner) -> None:
    code = f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), os._exit(3))); {IGNORES_SIGINT}"
    child = spawn(code, grace=500)
    ended = follow(child, Listener(b"ready", lambda: child.stop("cancelled"), child.hurry))
    assert (ended.signals, ended.exit_code) == (("SIGINT", "SIGTERM"), 3)


def test_hurrying_twice_skips_both(spawn: Spawner) -> None:
    child = spawn(IGNORES_BOTH, grace=500)
    hurried: list[float] = []
    last = (child.hurry, lambda: hurried.append(time.monotonic()))
    ended = follow(child, Listener(b"ready", lambda: child.stop("cancelled"), child.hurry, *last))
    assert ended.signals == ("SIGINT", "SIGTERM", "SIGKILL")
    assert ended.at - hurried[0] < 4.5  # SIGTERM alone has a grace of 5 s


def test_hurry_before_a_stop_takes_no_grace_away(spawn: Spawner) -> None:
    child = spawn(CLOSES)
    ended = follow(child, Listener(b"ready", child.hurry, lambda: child.stop("cancelled")))
    assert (ended.signals, ended.exit_code) == (("SIGINT",), 0)


# What outlives a child

DAEMON = """
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pid = os.fork()
    if pid:
        print(pid, "left", flush=True)
        os._exit(0)
    time.sleep(600)
"""


def leaves(**options: object) -> str:
    """Code that leaves a process behind, started with the options, and prints its number."""
    argv = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    return f"print(subprocess.Popen({argv}, **{options}).pid, 'left', flush=True)\n"


@pytest.mark.parametrize(
    ("code", "stop_at"),
    [
        pytest.param(leaves(), b"", id="a grandchild"),
        pytest.param(DAEMON, b"", id="a daemon, deaf to SIGTERM"),
        pytest.param(leaves(env={}), b"", id="in the session, no mark"),
        pytest.param(leaves(env={}, start_new_session=True) + "time.sleep(2.5)", b"", id="only seen before"),
        pytest.param(leaves(start_new_session=True) + CLOSES, b"ready", id="when the child was stopped"),
        pytest.param(leaves(start_new_session=True) + IGNORES_BOTH, b"ready", id="when the child was killed"),
        pytest.param(leaves(env={}, start_new_session=True) + CLOSES, b"ready", id="no mark, when it was stopped"),
    ],
)
def test_nothing_outlives_the_child(spawn: Spawner, code: str, stop_at: bytes) -> None:
    child = spawn(code, grace=1)
    left: list[psutil.Process] = []
    printed = b""

    def listen(stream: str, chunk: bytes) -> None:
        nonlocal printed
        printed += chunk
        if b"left" in printed and not left:
            left.append(psutil.Process(int(printed.split()[0])))
        if stop_at and stop_at in printed:
            child.stop("cancelled")

    ended = follow(child, listen)
    assert is_gone(left[0])
    assert (ended.survivors_killed, ended.clean) == (1, False)


def test_what_outlives_the_child_is_asked_first(spawn: Spawner) -> None:
    code = "if os.fork() == 0:\n signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), os._exit(0)))\n "
    listener = Listener()
    ended = follow(spawn(f"{code}{HANGS}"), listener)
    assert listener.heard["stdout"] == b"ready\nasked\n"
    assert ended.survivors_killed == 1


def test_a_stop_after_the_childs_end_stopped_nothing(spawn: Spawner) -> None:
    code = (
        "import os, sys, time\n"
        "while os.getppid() == int(sys.argv[1]): time.sleep(0.01)\n"
        "time.sleep(0.2); print('late', flush=True); time.sleep(0.1)"
    )
    child = spawn(f"subprocess.Popen([sys.executable, '-S', '-c', {code!r}, str(os.getpid())])")
    ended = follow(child, Listener(b"late", lambda: child.stop("cancelled")))
    assert (ended.stopped, ended.signals, ended.exit_code) == (None, (), 0)


def test_what_leaves_soon_by_itself_is_not_killed(spawn: Spawner) -> None:
    code = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(0.1); print(1234)'])"
    listener = Listener()
    ended = follow(spawn(code), listener)
    assert (ended.survivors_killed, ended.clean) == (0, True)
    assert listener.heard["stdout"] == b"1234\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can make a process the parent of its orphans")
def test_orphans_are_reaped_where_this_process_is_their_init(tmp_path: Path) -> None:
    script = f"""
import ctypes, os, psutil, sys
from pathlib import Path
from demo_api.process.child import Child
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
folder = Path({str(tmp_path)!r})
child = Child(
    [sys.executable, "-c", {"import os, signal, time" + DAEMON!r}],
    cwd=folder, env=os.environ, stdout=folder / "out", stderr=folder / "err", mark=("DEMO_API_RUN", str(os.getpid())),
)
ended = child.follow(timeout_s=60, max_output=10**6, on_output=lambda stream, chunk: None)
daemon = int((folder / "out").read_text().split()[0])
print(ended.survivors_killed, psutil.pid_exists(daemon))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1 False\n", "")


def test_a_pid_that_became_somebody_elses_is_left_alone(spawn: Spawner) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        before = psutil.Process(stranger.pid)
        before._ident = (stranger.pid, before.create_time() - 1000)  # as if an earlier process had had its number
        child = spawn("pass")
        child._tree._seen.add(before)
        ended = follow(child)
        assert stranger.poll() is None
        stranger.kill()
    assert ended.survivors_killed == 0


def test_survivors_are_those_with_the_mark(spawn: Spawner) -> None:
    one, other = spawn(CLOSES), spawn(CLOSES)
    found = []
    for child, mark in zip((one, other), spawn.marks, strict=True):

        def look(child: Child = child, mark: tuple[str, str] = mark) -> None:
            found.append([process.pid for process in survivors(mark[0], [mark[1]])] == [child.pid])
            child.stop("cancelled")

        follow(child, Listener(b"ready", look))
    assert found == [True, True]
    mine = next(iter(psutil.Process().environ().items()))
    assert os.getpid() not in [process.pid for process in survivors(mine[0], [mine[1]])]
    assert [survivors(mark[0], [mark[1]]) for mark in spawn.marks] == [[], []]


# What a child prints


def test_every_byte_arrives_once_and_in_order(spawn: Spawner) -> None:
    code = """
for number in range(20000):
    os.write(1 + number % 2, b"%d\\n" % number)
os.write(1, b"x" * 3 * 2**20)
os.write(2, b"\\xff\\x00\\r")
"""
    listener = Listener()
    assert follow(spawn(code), listener).exit_code == 0
    lines = [b"".join(b"%d\n" % number for number in range(first, 20000, 2)) for first in (0, 1)]
    assert listener.heard == {"stdout": lines[0] + b"x" * 3 * MIB, "stderr": lines[1] + b"\xff\x00\r"}
    assert (spawn.kept("out"), spawn.kept("err")) == tuple(listener.heard.values())


def test_a_line_is_heard_while_the_child_runs(spawn: Spawner) -> None:
    child = spawn("os.write(2, b'no newline'); time.sleep(600)")
    assert follow(child, Listener(b"no newline", lambda: child.stop("cancelled"))).stopped == "cancelled"


def test_a_long_line_comes_in_bounded_pieces(spawn: Spawner) -> None:
    sizes: list[int] = []
    seen = hashlib.sha256()

    def listener(stream: str, chunk: bytes) -> None:
        sizes.append(len(chunk))
        seen.update(chunk)

    ended = follow(spawn("for letter in b'abcde' * 10: os.write(1, bytes([letter]) * 10**6)"), listener)
    assert ended.stopped is None
    assert sum(sizes) == 50 * 10**6
    assert max(sizes) <= MIB
    assert seen.digest() == hashlib.sha256(b"".join(bytes([c]) * 10**6 for c in b"abcde" * 10)).digest()


class Scale:
    """Watches how large two files get together, from another thread."""

    def __init__(self, folder: Path) -> None:
        self.peak = 0
        self._folder = folder
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._enough.wait(0.002):
            with contextlib.suppress(FileNotFoundError):
                self.peak = max(self.peak, sum(path.stat().st_size for path in self._folder.glob("*.[oe][ur][tr]")))

    def __enter__(self) -> Scale:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        join(self._thread)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_is_bounded_on_disk_and_in_memory(spawn: Spawner, stream: str) -> None:
    """The child goes on through its whole grace, as one that closes its device may."""
    fd = {"stdout": 1, "stderr": 2}[stream]
    code = f"""
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.write({3 - fd}, b"the other one")
for _ in range(3000): os.write({fd}, b"flooding" * 2**17)
time.sleep(600)
"""
    heard = {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()}
    tracemalloc.start()
    with Scale(spawn.folder) as scale:
        ended = follow(spawn(code, grace=1), lambda stream, chunk: heard[stream].update(chunk), max_output=8 * MIB)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (ended.stopped, ended.signals) == ("output_too_large", ("SIGINT", "SIGTERM"))
    kept = {"stdout": spawn.kept("out"), "stderr": spawn.kept("err")}
    assert {name: hashlib.sha256(text).digest() for name, text in kept.items()} == {
        name: digest.digest() for name, digest in heard.items()
    }
    assert sum(map(len, kept.values())) == 8 * MIB
    assert scale.peak < 1500 * MIB  # half of the flood; usually it is some 60, but who looks may be kept from that
    assert memory < 8 * MIB


def test_a_flood_that_ends_before_it_is_seen_is_cut_too(spawn: Spawner) -> None:
    child = spawn("os.write(1, b'x' * 10**6)")
    until_known_to_have_ended(child)
    ended = follow(child, max_output=10**5)
    assert (ended.stopped, ended.signals, ended.exit_code) == ("output_too_large", (), 0)
    assert spawn.kept("out") == b"x" * 10**5


def test_as_much_as_may_be_printed_is_not_too_much(spawn: Spawner) -> None:
    ended = follow(spawn("os.write(1, b'x' * 1000); os.write(2, b'x' * 1000)"), max_output=2000)
    assert ended.stopped is None


# How a child is spawned


@pytest.mark.parametrize(
    ("argv", "options", "error"),
    [
        pytest.param(["/no/such/python"], {}, FileNotFoundError, id="no interpreter"),
        pytest.param([__file__], {}, PermissionError, id="not executable"),
        pytest.param([sys.executable, "-V"], {"cwd": Path("/no/such/folder")}, FileNotFoundError, id="no cwd"),
        pytest.param([sys.executable, "-V"], {"stderr": Path("/no/such/file")}, FileNotFoundError, id="no folder"),
        pytest.param([sys.executable, "-V"], {"stderr": Path(__file__)}, FileExistsError, id="a file that is there"),
    ],
)
def test_what_cannot_be_spawned_leaves_nothing(
    spawn: Spawner, argv: list[str], options: dict[str, object], error: type[OSError]
) -> None:
    before = psutil.Process().num_fds(), threading.active_count()
    with pytest.raises(error):
        spawn.run(argv, **options)
    assert (psutil.Process().num_fds(), threading.active_count()) == before
    assert list(spawn.folder.iterdir()) == []


def test_where_a_child_finds_itself(spawn: Spawner) -> None:
    code = """
def is_open(fd):
    try: return bool(os.fstat(fd))
    except OSError: return False
print(os.getsid(0) == os.getpid(), os.getcwd(), os.environ["GIVEN"], "HOME" in os.environ, os.read(0, 1),
      *map(is_open, map(int, sys.argv[1:])))
"""
    passed, kept_back = os.pipe()
    os.write(kept_back, b"typed by somebody")
    stdin = os.dup(0)
    os.dup2(passed, 0)
    os.set_inheritable(kept_back, True)
    listener = Listener()
    argv = [sys.executable, "-c", f"import os, sys\n{code}", str(passed), str(kept_back)]
    follow(spawn.run(argv, env={"GIVEN": "yes"}, pass_fds=[passed]), listener)
    os.dup2(stdin, 0)
    for fd in (stdin, passed, kept_back):
        os.close(fd)
    assert listener.heard["stdout"].decode() == f"True {spawn.folder} yes False b'' True False\n"


def test_its_files_are_for_the_owner_only(spawn: Spawner) -> None:
    umask = os.umask(0)
    try:
        follow(spawn("pass"))
    finally:
        os.umask(umask)
    assert {oct(path.stat().st_mode & 0o777) for path in spawn.folder.iterdir()} == {"0o600"}


def test_a_handled_sigint_is_the_default_one_in_the_child(spawn: Spawner) -> None:
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        listener = Listener()
        follow(spawn("print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"), listener)
    finally:
        signal.signal(signal.SIGINT, before)
    assert listener.heard["stdout"] == b"True\n"


def test_thirty_children_leave_no_thread_no_file_and_no_zombie(spawn: Spawner) -> None:
    follow(spawn("pass"))
    before = psutil.Process().num_fds(), threading.active_count(), psutil.Process().children()
    for _ in range(30):
        follow(spawn.run(["/bin/echo", "hello"]))
    assert (psutil.Process().num_fds(), threading.active_count(), psutil.Process().children()) == before


# When follow() itself is interrupted


def test_an_error_of_the_listener_stops_the_tree_first(spawn: Spawner) -> None:
    def listener(stream: str, chunk: bytes) -> None:
        raise ValueError("the reader broke")

    closing = "lambda *_: (os.write(1, b'closing '), time.sleep(0.5), os.write(1, b'closed'), os._exit(0))"
    child = spawn(f"signal.signal(signal.SIGINT, {closing}); {HANGS}")
    process = psutil.Process(child.pid)
    with pytest.raises(ValueError, match="the reader broke"):
        follow(child, listener)
    assert not process.is_running()
    assert spawn.kept("out") == b"ready\nclosing closed"  # it had its grace


def test_an_error_while_stopping_does_not_interrupt_the_clean_up(spawn: Spawner) -> None:
    def listener(stream: str, chunk: bytes) -> None:
        if chunk == b"asked":
            raise ValueError("the reader broke")
        child.stop("cancelled")

    closing = "lambda *_: (os.write(1, b'asked'), time.sleep(0.5), os.write(1, b' once'), os._exit(0))"
    child = spawn(f"signal.signal(signal.SIGINT, {closing}); {HANGS}")
    with pytest.raises(ValueError, match="the reader broke"):
        follow(child, listener)
    assert spawn.kept("out") == b"ready\nasked once"


@pytest.mark.parametrize(
    ("code", "times", "last_words"),
    [
        pytest.param(CLOSES, 1, b"ready\nclosed\n", id="once"),
        pytest.param(
            f"signal.signal(signal.SIGINT, lambda *_: os.write(1, b'asked')); {HANGS}", 2, b"ready\nasked", id="twice"
        ),
    ],
)
def test_ctrl_c_stops_the_tree_first(spawn: Spawner, code: str, times: int, last_words: bytes) -> None:
    child = spawn(code, grace=500)
    process = psutil.Process(child.pid)

    def press() -> None:
        until(lambda: b"ready" in spawn.kept("out"))
        os.kill(os.getpid(), signal.SIGINT)
        if times == 2:
            until(lambda: b"asked" in spawn.kept("out"))
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presser = threading.Thread(target=press)
    try:
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            follow(child, timeout_s=500)
    finally:
        join(presser)
        signal.signal(signal.SIGINT, before)
    assert not process.is_running()
    assert spawn.kept("out") == last_words


# Demos that misbehave


@pytest.mark.parametrize(
    ("demo", "exit_code", "survivors_killed"),
    [
        pytest.param("passes", 0, 0),
        pytest.param("leaves_grandchild", 0, 1),
        pytest.param("leaves_daemon", 0, 1),
        pytest.param("segfaults", -signal.SIGSEGV, 0),
    ],
)
def test_a_demo_that_ends_by_itself(spawn: Spawner, demo: str, exit_code: int, survivors_killed: int) -> None:
    ended = follow(spawn.demo(demo))
    assert (ended.exit_code, ended.survivors_killed, ended.stopped) == (exit_code, survivors_killed, None)
    left = [int(file.read_text()) for file in (spawn.folder / "home").glob("*.pid")]
    assert len(left) == survivors_killed
    assert [pid for pid in left if pid in psutil.pids() and not is_gone(psutil.Process(pid))] == []


def test_a_demo_closes_its_device_when_it_is_stopped(spawn: Spawner) -> None:
    child = spawn.demo("closes_device_slowly")
    ended = follow(child, Listener(b"Starting decode loop...", lambda: child.stop("cancelled")))
    assert (ended.exit_code, ended.signals, ended.clean) == (2, ("SIGINT",), True)
    assert (spawn.folder / "home" / "device_closed").read_text() == "closed"
