"""The model's own process, in an environment that has none of our packages, with stand-ins for torch and ttnn."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
import requests
from support.checkouts import GENERATIONS, make_bare_environment
from support.command_line import Serving, serving
from support.echo_runner import EchoRunner
from support.serving import Server
from support.sse import events
from support.waiting import pause, until

from demo_api.cli.doctor.machine_checks import model_process
from demo_api.cli.doctor.probe import Setup
from demo_api.config import Settings
from demo_api.devices.lock import devices_of
from demo_api.devices.loop import DeviceLoop
from demo_api.direct import make_model
from demo_api.direct.hosted_model import HostedModel
from demo_api.direct.model import EngineLost
from demo_api.errors import RunFailed, SetupError
from demo_api.messages import Question, Request
from demo_api.queue import Ledger


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bare_environment(tmp_path_factory.mktemp("bare") / "python_env")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    folder = tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("TINY_MODEL_FOLDER", str(folder))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Told(folder)


class Told:
    """What the stand-ins in the model's process tell, and the gates that they stop at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def steps(self) -> list[str]:
        path = self._folder / "steps"
        return path.read_text().split() if path.exists() else []

    def count(self, name: str) -> int:
        return self.steps().count(name)

    def shut(self, name: str) -> None:
        (self._folder / f"{name}.gate").touch()

    def open(self, name: str) -> None:
        (self._folder / f"{name}.gate").unlink()


@pytest.fixture
def home(tt_settings: Callable[..., Settings], environment: Path, told: Told) -> Callable[..., Settings]:
    """Makes settings for a checkout whose python_env is the bare environment."""

    def make(generation: str = "2026", **flags: object) -> Settings:
        settings = tt_settings(generation, engine="direct", **flags)
        (settings.demo_home / "python_env").symlink_to(environment)
        return settings

    return make


@pytest.fixture
def load() -> Iterator[Callable[[Settings], HostedModel]]:
    loaded = []

    def start(settings: Settings) -> HostedModel:
        model = make_model(settings)
        assert isinstance(model, HostedModel)
        loaded.append(model)
        model.load(lambda sentence: None)
        return model

    yield start
    for model in loaded:
        model.close()


def ask(model: HostedModel, prompt: str, **fields: object) -> str:
    question = Question.of(Request.model_validate({"prompt": prompt, **fields}))
    model.accept(question)
    return model.complete(question, lambda *_: False).response


def process_of() -> psutil.Process:
    """The model's process, which this process has started."""
    found = [each for each in psutil.Process().children() if "demo_api_host" in _command(each)]
    assert len(found) == 1
    return found[0]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_free(settings: Settings) -> bool:
    lock = devices_of(settings)[0].try_lock()
    if lock is None:
        return False
    with lock:
        return not lock.others_serve


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_demo_homes_environment_needs_none_of_our_packages(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel], told: Told, generation: str
) -> None:
    settings = home(generation)
    model = load(settings)
    assert (model.name, model.device, model.slots, model.context) == ("Tiny-1B-Instruct", "N150", 1, 2048)
    assert process_of().exe() == str((settings.demo_home / "python_env/bin/python").resolve())
    assert ask(model, "abc") == "cba"
    assert ask(model, "say né 😀!") == "né 😀!"
    model.close()
    assert (told.count("open_mesh_device"), told.count("close_mesh_device")) == (1, 1)


@pytest.mark.parametrize(("generation", "variable"), [("2025", "LLAMA_DIR"), ("2026", "HF_MODEL")])
def test_the_process_runs_as_the_demos_child_does(
    home: Callable[..., Settings],
    load: Callable[[Settings], HostedModel],
    monkeypatch: pytest.MonkeyPatch,
    generation: str,
    variable: str,
) -> None:
    for name, value in {"MESH_DEVICE": "N150", "PYTHONHOME": "/nowhere", "DEMO_API_KEY": "k" * 20}.items():
        monkeypatch.setenv(name, value)
    settings = home(generation, devices="a TT_VISIBLE_DEVICES=2; b TT_VISIBLE_DEVICES=3")
    model = load(settings)
    process = process_of()
    environ = process.environ()
    assert process.cwd() == str(settings.demo_home), "weights that were converted for the demo are found again"
    assert [name for name in ("LLAMA_DIR", "HF_MODEL") if name in environ] == [variable]
    assert (environ["TT_VISIBLE_DEVICES"], environ["MESH_DEVICE"]) == ("2", "N150")
    assert not {"PYTHONHOME", "DEMO_API_KEY"} & environ.keys()
    model.close()


def test_while_it_is_loaded_no_run_of_the_demo_gets_the_device(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    settings = home()
    model = load(settings)
    assert not is_free(settings)
    model.close()
    assert is_free(settings)


@pytest.mark.parametrize("child", [pytest.param(True, id="its child"), pytest.param(False, id="its child is gone")])
def test_a_device_that_another_server_is_busy_with_is_not_opened(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel], told: Told, child: bool
) -> None:
    settings = home()
    settings.state_dir.mkdir()
    hold = devices_of(settings)[0].try_lock()
    assert hold is not None
    if not child:
        hold.hand_to_child()
    with hold, pytest.raises(SetupError, match="'device' is in use") as caught:
        load(settings)
    assert "demo-api device status" in caught.value.next_step
    assert told.steps() == []
    load(settings)


def test_no_model_is_told_before_anything_is_started(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel], told: Told
) -> None:
    with pytest.raises(SetupError, match="No model is set"):
        load(home(hf_model=None))
    assert told.steps() == []


def test_what_fails_in_the_process_is_told_with_its_next_step(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    settings = home()
    (settings.demo_home / "models/tt_transformers/tt/generator.py").unlink()
    with pytest.raises(SetupError, match=r"No module named 'models\.tt_transformers\.tt\.generator'") as caught:
        load(settings)
    assert "DEMO_API_PYTHON" in caught.value.next_step
    assert is_free(settings)


def test_an_answer_of_a_process_that_is_closed_is_refused(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    model = load(home())
    model.close()
    with pytest.raises(RunFailed, match="not in memory"):
        ask(model, "abc")


def test_a_prompt_of_ten_megabytes_gets_through(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    request = Request.model_construct(prompt="x" * 10_000_000, max_tokens=4, temperature=0.0, top_p=0.9, seed=None)
    model = load(home())
    with pytest.raises(Exception, match="it has 10000004 tokens"):
        model.accept(Question.of(request))
    assert ask(model, "abc") == "cba"


def test_the_output_is_private_and_the_folder_tells_that_all_was_closed(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    settings = home()
    model = load(settings)
    (folder,) = settings.runs_dir.iterdir()
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(["child.json", "prompts.json", "stdout.txt", "stderr.txt"], 0o600)
    assert folder.stat().st_mode & 0o777 == 0o700
    model.close()
    assert sorted(path.name for path in folder.iterdir()) == ["stderr.txt", "stdout.txt"]


# Where the model's process is when something happens to it: the step that it has reached, and who asks.
PHASES = {
    "loading": "create_tt_model",
    "prefill": "prefill",
    "decode": "decode",
    "idle": None,
}
SIGNALS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP]


@pytest.fixture
def start(home: Callable[..., Settings], serve: Callable[..., Server]) -> Callable[..., Server]:
    def make(**flags: object) -> Server:
        return serve(home(**flags))

    return make


def is_ready(server: Server) -> bool:
    return server.get("/readyz").status_code == 200


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_what_kills_the_model_fails_what_it_answered_and_nothing_else(
    start: Callable[..., Server], told: Told, phase: str, number: signal.Signals
) -> None:
    server = start(run_timeout=10 if number == signal.SIGSTOP else 100, stop_grace=1)
    until(lambda: is_ready(server))
    told.shut(PHASES[phase] or "")
    with ThreadPoolExecutor(2) as pool:
        before = told.count(phase)
        lost = pool.submit(server.chat, "abc")
        until(lambda: told.count(phase) > before)
        waits = pool.submit(server.chat, "def")
        until(lambda: server.get("/health").json()["queue"]["waiting"] == 1)
        process_of().send_signal(number)
        body = lost.result().json()
        assert (lost.result().status_code, body["code"]) == (500, "engine_lost")
        assert server.get("/livez").status_code == 200
        told.open(PHASES[phase] or "")
        if number == signal.SIGSTOP:
            assert "has said nothing for 10 s" in body["error"]
        else:
            assert f"ended by {number.name}" in body["error"]
        assert str(server.settings.runs_dir) in body["next_step"]
        assert waits.result().json()["response"] == "fed", "it stayed in the line"
    health = server.get("/health").json()
    assert health["losses"] == 1
    assert health["latest_loss"] == body["error"]
    assert is_ready(server)
    finding = model_process(Setup(server.settings))
    assert body["error"] in finding.sentence
    assert str(server.settings.runs_dir) in finding.next_step


def test_a_stream_whose_model_is_lost_ends_with_the_error(start: Callable[..., Server], told: Told) -> None:
    server = start()
    until(lambda: is_ready(server))
    before = told.count("decode")
    told.shut("decode")
    seen = events(f"{server.url}/chat/stream", body={"prompt": "abc"})
    assert next(data for _, kind, data in seen if kind == "text")["added"] == "c"
    until(lambda: told.count("decode") > before)
    process_of().kill()
    *_, (_, kind, done) = seen
    told.open("decode")
    assert (kind, done["status"], done["code"]) == ("done", "failed", "engine_lost")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_model_that_is_lost_while_idle_is_loaded_again(
    start: Callable[..., Server], told: Told, number: signal.Signals
) -> None:
    server = start()
    until(lambda: is_ready(server))
    told.shut("create_tt_model")
    process_of().send_signal(number)
    until(lambda: not is_ready(server))
    refused = server.get("/readyz").json()
    assert (refused["code"], refused["phase"]) == ("starting", "load")
    assert f"ended by {number.name}" in refused["error"]
    assert server.get("/livez").status_code == 200
    told.open("create_tt_model")
    until(lambda: is_ready(server))
    assert server.chat("abc").json()["response"] == "cba"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_process_that_is_lost_while_it_loads_is_started_again(
    start: Callable[..., Server], told: Told, number: signal.Signals
) -> None:
    told.shut("create_tt_model")
    server = start(run_timeout=10 if number == signal.SIGSTOP else 100, stop_grace=1)
    until(lambda: told.count("create_tt_model"))
    assert server.get("/livez").status_code == 200
    process_of().send_signal(number)
    until(lambda: server.get("/health").json()["losses"] == 1)
    assert server.get("/readyz").json()["error"]
    told.open("create_tt_model")
    until(lambda: is_ready(server))
    assert server.chat("abc").json()["response"] == "cba"


def test_a_model_that_never_gets_ready_is_ended_and_tried_again_later(start: Callable[..., Server], told: Told) -> None:
    told.shut("create_tt_model")
    server = start(run_timeout=4, stop_grace=1)
    until(lambda: server.get("/health").json()["losses"] == 2)  # the second load follows at once
    until(lambda: server.get("/readyz").json()["code"] == "not_set_up")
    assert "has said nothing for 4 s" in server.get("/readyz").json()["error"]
    assert told.count("open_mesh_device") == 2
    told.open("create_tt_model")


def test_a_server_that_is_closed_while_the_model_loads_closes_the_device(
    start: Callable[..., Server], told: Told
) -> None:
    told.shut("create_tt_model")
    server = start(stop_grace=30)
    until(lambda: told.count("create_tt_model"))
    server.service.close()
    assert told.count("close_mesh_device") == 1
    assert is_free(server.settings)


def test_a_device_that_was_not_closed_is_reset(start: Callable[..., Server], told: Told, tmp_path: Path) -> None:
    server = start(reset_command=f"touch {tmp_path}/reset")
    until(lambda: is_ready(server))
    assert not (tmp_path / "reset").exists()
    process_of().kill()
    until(lambda: (tmp_path / "reset").exists())
    until(lambda: is_ready(server))


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "closed in order"])
def test_a_device_that_a_killed_model_left_is_suspect_for_the_demo_too(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel], killed: bool
) -> None:
    settings = home()
    model = load(settings)
    if killed:
        process_of().kill()
    model.close()
    with closing(Ledger(settings)) as ledger:
        (device,) = devices_of(settings)
        DeviceLoop(ledger, device, EchoRunner(), settings, changed=lambda: None).turn()
        assert ledger.devices.get(device.name).state == ("suspect" if killed else "free")


@pytest.fixture
def serve_apart() -> Iterator[Callable[[Settings], Serving]]:
    """Starts servers in processes of their own."""
    with ExitStack() as stack:

        def start(settings: Settings, *flags: str) -> Serving:
            paths = [f"--demo-home={settings.demo_home}", f"--state-dir={settings.state_dir}", "--stop-grace=1"]
            model = f"--hf-model={settings.hf_model}"
            words = ["--engine=direct", *paths, model, *flags]
            server = stack.enter_context(serving(*words, environ=settings.inherited))
            until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 200)
            return server

        yield start


@pytest.mark.parametrize("fails_fast", ["true", "false"])
def test_ctrl_c_while_the_model_is_loaded_is_no_failure(
    home: Callable[..., Settings], told: Told, fails_fast: str
) -> None:
    settings = home()
    told.shut("create_tt_model")
    words = ["--engine=direct", f"--demo-home={settings.demo_home}", f"--state-dir={settings.state_dir}"]
    flags = [f"--hf-model={settings.hf_model}", f"--fail-fast={fails_fast}"]
    with serving(*words, *flags, environ=settings.inherited) as server:
        until(lambda: told.count("create_tt_model"))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
    assert (told.count("open_mesh_device"), told.count("close_mesh_device")) == (1, 1)


def test_a_process_whose_server_is_killed_closes_its_device(
    home: Callable[..., Settings], told: Told, serve_apart: Callable[[Settings], Serving]
) -> None:
    settings = home()
    server = serve_apart(settings)
    (process,) = psutil.Process(server.process.pid).children()
    server.process.kill()
    process.wait(60)
    assert told.count("close_mesh_device") == 1
    assert is_free(settings)
    (folder,) = settings.runs_dir.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["stderr.txt", "stdout.txt"]


def test_a_process_that_outlives_its_server_is_ended_by_the_next(
    home: Callable[..., Settings], told: Told, serve_apart: Callable[[Settings], Serving]
) -> None:
    settings = home()
    server = serve_apart(settings)
    (process,) = psutil.Process(server.process.pid).children()
    process.suspend()
    server.process.kill()
    server.process.wait(60)
    assert process.is_running()
    serve_apart(settings)
    process.wait(60)


def test_both_killed_at_once_leave_the_device_to_the_next(
    home: Callable[..., Settings], serve_apart: Callable[[Settings], Serving]
) -> None:
    settings = home()
    server = serve_apart(settings)
    (process,) = psutil.Process(server.process.pid).children()
    process.kill()
    server.process.kill()
    server.process.wait(60)
    again = serve_apart(settings)
    assert requests.post(f"{again.url}/chat", json={"prompt": "abc"}, timeout=60).json()["response"] == "cba"


def test_a_suspended_server_goes_on_where_it_was(
    home: Callable[..., Settings], serve_apart: Callable[[Settings], Serving]
) -> None:
    server = serve_apart(home())
    ours = psutil.Process(server.process.pid)
    with ThreadPoolExecutor(1) as pool:
        body = {"prompt": "endless", "max_tokens": 1500}
        answer = pool.submit(requests.post, f"{server.url}/chat", json=body, timeout=60)
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["queue"]["running"] == 1)
        ours.suspend()
        pause(0.5)  # the pipe fills
        ours.resume()
        assert answer.result().json()["tokens_generated"] == 1500


LEAVES = {
    "exits 0": ("import os; os._exit(0)", "ended with exit code 0"),
    "exits 3": ("import os; print('Good bye'); os._exit(3)", "ended with exit code 3: Good bye."),
    "says nonsense": ("import os, sys; os.write(int(sys.argv[2]), b'{nonsense\\n')", "cannot be understood"),
}


@pytest.mark.parametrize(("code", "sentence"), LEAVES.values(), ids=LEAVES)
def test_a_program_that_leaves_or_says_nonsense_is_lost(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel], code: str, sentence: str
) -> None:
    settings = home()
    path = settings.demo_home / "models/tt_transformers/tt/common.py"
    right = path.read_text()
    path.write_text(f"{code}\n{right}")
    with pytest.raises(EngineLost, match=sentence):
        load(settings)
    path.write_text(right)
    assert ask(load(settings), "abc") == "cba"


def test_what_libraries_print_disturbs_nobody(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    settings = home(max_output=2**20)
    path = settings.demo_home / "models/tt_transformers/tt/common.py"
    noise = "import os\nfor fd in (1, 2):\n    os.write(fd, b'{\\xff nonsense\\n' * 10000)\n"
    path.write_text(noise + path.read_text())
    assert ask(load(settings), "abc") == "cba"


def test_a_process_that_prints_without_end_is_ended(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    settings = home(max_output=2**16)
    path = settings.demo_home / "models/tt_transformers/tt/common.py"
    path.write_text("import os\nwhile True:\n    os.write(1, b'x' * 1000)\n")
    with pytest.raises(EngineLost, match="printed more than 65536 bytes"):
        load(settings)
    (folder,) = settings.runs_dir.iterdir()
    assert (folder / "stdout.txt").stat().st_size <= 2**16


def test_a_model_that_nobody_asks_is_let_go_and_the_next_question_loads_it(
    start: Callable[..., Server], told: Told
) -> None:
    server = start(warm_idle=0.5)
    until(lambda: told.count("close_mesh_device") == 1)
    until(lambda: is_free(server.settings))
    health = server.get("/health").json()
    assert (health["status"], health["model_loaded"], health["device"], health["losses"]) == ("healthy", False, None, 0)
    assert is_ready(server)
    refused = server.chat("x" * 3000)
    assert (refused.status_code, refused.json()["field"]) == (400, "prompt")
    until(lambda: told.count("close_mesh_device") == 2)
    body = server.chat("abc").json()
    assert body["response"] == "cba"
    assert 0 < body["timing"]["load_seconds"] <= body["time_seconds"]
    assert server.chat("abc").json()["timing"]["load_seconds"] is None


def test_a_model_that_answers_is_not_let_go(start: Callable[..., Server], told: Told) -> None:
    server = start(warm_idle=0.3)
    until(lambda: is_ready(server))
    told.shut("decode")
    with ThreadPoolExecutor(1) as pool:
        before = told.count("decode")
        answer = pool.submit(server.chat, "abc")
        until(lambda: told.count("decode") > before)
        closed = told.count("close_mesh_device")
        pause(1)
        assert told.count("close_mesh_device") == closed
        told.open("decode")
        assert answer.result().json()["response"] == "cba"


def test_a_model_that_was_let_go_waits_for_the_device(start: Callable[..., Server], told: Told) -> None:
    server = start(warm_idle=0.3)
    until(lambda: told.count("close_mesh_device") == 1)
    until(lambda: is_free(server.settings))
    hold = devices_of(server.settings)[0].try_lock()
    assert hold is not None
    with ThreadPoolExecutor(1) as pool:
        with hold:
            answer = pool.submit(server.chat, "abc")
            pause(1)
            assert not answer.done()
            assert told.count("open_mesh_device") == 1
        assert answer.result().json()["response"] == "cba"


def test_what_cannot_be_loaded_again_is_told_to_who_waits(start: Callable[..., Server], told: Told) -> None:
    server = start(warm_idle=0.3)
    until(lambda: told.count("close_mesh_device") == 1)
    (server.settings.demo_home / "models/tt_transformers/tt/generator.py").unlink()
    answer = server.chat("abc")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_set_up")
    assert "No module named" in answer.json()["error"]


def test_a_thousand_questions_leave_nothing_behind(
    home: Callable[..., Settings], load: Callable[[Settings], HostedModel]
) -> None:
    model = load(home())
    processes = (psutil.Process(), process_of())

    def sizes() -> list[tuple[int, int, float]]:
        return [(each.num_fds(), each.num_threads(), each.memory_info().rss / 2**20) for each in processes]

    for _ in range(200):
        ask(model, "abc", max_tokens=2)
    before = sizes()
    for _ in range(1000):
        assert ask(model, "abc", max_tokens=2) == "cb"
    for (files, threads, size), (files_after, threads_after, size_after) in zip(before, sizes(), strict=True):
        assert (files_after, threads_after) == (files, threads)
        assert size_after < size + 8


def test_a_client_that_hardly_reads_holds_up_nobody(start: Callable[..., Server]) -> None:
    server = start()
    until(lambda: is_ready(server))
    body = {"prompt": "endless", "max_tokens": 2000}
    with requests.post(f"{server.url}/chat/stream", json=body, stream=True, timeout=60) as slow:
        assert slow.raw.read(1)
        with ThreadPoolExecutor(7) as pool:
            answers = list(pool.map(server.chat, ["abc"] * 7))
        assert slow.raw.read(1)
    assert [answer.json()["response"] for answer in answers] == ["cba"] * 7
