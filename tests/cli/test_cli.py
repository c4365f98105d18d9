"""The command as a user types it: real processes, real signals, real exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from click.shell_completion import BashComplete
from click.testing import CliRunner
from support.command_line import DEMO_API, demo_api, serving
from support.demo_homes import make_home
from support.waiting import join, pause, until

from demo_api.cli import main
from demo_api.cli.options import GROUPS
from demo_api.config import Settings, flag_names
from demo_api.devices.lock import devices_of
from demo_api.process.tree import survivors
from demo_api.queue import Ledger


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose state is in the test's folder."""
    return os.environ | {
        "DEMO_API_STATE_DIR": str(tmp_path / "state"),
        "DEMO_API_STOP_GRACE": "5",
        "DEMO_API_DRAIN": "0",
    }


@pytest.fixture
def home_of(tmp_path: Path) -> Callable[[str], list[str]]:
    """The flags that select a demo home with this child."""

    def flags(child: str) -> list[str]:
        (tmp_path / "model").mkdir(exist_ok=True)
        return ["--demo-home", str(make_home(tmp_path / child, child)), "--llama-dir", str(tmp_path / "model")]

    return flags


def _batch_ids(environ: dict[str, str]) -> list[str]:
    return [folder.name for folder in (Path(environ["DEMO_API_STATE_DIR"]) / "runs").iterdir()]


def _left(environ: dict[str, str]) -> list[psutil.Process]:
    return survivors("DEMO_API_RUN", _batch_ids(environ))


def test_serve_prints_the_banner_and_a_line_per_request_and_phase(
    environ: dict[str, str], home_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    with serving(*home_of("passes"), environ=environ) as server:
        for words in (
            "✓ Demo script:",
            f"LLAMA_DIR={tmp_path / 'model'}",
            "PYTHONPATH:",
            "Endpoints:",
            "Note:",
            "Warning: The first run on a device compiles kernels",
            "Ctrl+C",
        ):
            assert words in server.banner
        assert server.next_line() == f"Server ready on {server.url}\n"
        assert f"POST {server.url}/chat" in server.banner
        assert f"GET  {server.url}/health" in server.banner
        answer = requests.post(f"{server.url}/chat", json={"prompt": "Hello"}, timeout=60)
        assert answer.status_code == 200
        server.process.send_signal(signal.SIGINT)
        log = server.process.communicate(timeout=30)[1]
        assert server.process.returncode == 0
    run_id = answer.json()["run_id"]
    for phase in ("startup", "load", "prefill_compile", "prefill", "decode_compile", "decode", "output", "succeeded"):
        assert f"run {run_id}: {phase}\n" in log
    assert re.search(rf"POST /chat 200 in [\d.]+ s, client 127.0.0.1, run {run_id}", log)
    assert re.search(rf"run {run_id}: ✓ Generated \d+ tokens? in [\d.]+s \([\d.]+ tok/s\)\n", log), log


def test_ctrl_c_closes_the_device_first_and_answers_who_waits(
    environ: dict[str, str], home_of: Callable[[str], list[str]]
) -> None:
    flags = home_of("closes_device_slowly")
    with serving(*flags, environ=environ) as server:
        runs, answers = server.chat_in_background()
        server.wait_for_log("decode")
        waits, refused = server.chat_in_background()
        until(lambda: requests.get(f"{server.url}/health", timeout=60).json()["queue"]["waiting"] == 1)
        server.process.send_signal(signal.SIGINT)
        join(runs, waits)
        assert server.process.wait(60) == 0
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "shutting_down")
    assert (refused[0].status_code, refused[0].json()["code"]) == (503, "shutting_down")
    assert (Path(flags[1]) / "device_closed").exists()
    assert _left(environ) == []


def test_a_second_ctrl_c_hurries(environ: dict[str, str], home_of: Callable[[str], list[str]]) -> None:
    environ["DEMO_API_STOP_GRACE"] = "3600"
    with serving(*home_of("ignores_sigterm"), environ=environ) as server:
        thread, answers = server.chat_in_background()
        server.wait_for_log("decode")
        server.process.send_signal(signal.SIGINT)
        server.wait_for_log("stopping")

        def ends() -> bool:
            server.process.send_signal(signal.SIGINT)
            return server.process.poll() is not None

        until(ends, tick_seconds=0.5)
        join(thread)
    assert answers[0].json()["code"] == "shutting_down"
    assert _left(environ) == []


@pytest.mark.parametrize("child", ["hangs", "closes_device_slowly"])
def test_a_killed_server_takes_its_child_with_it(
    environ: dict[str, str], home_of: Callable[[str], list[str]], child: str
) -> None:
    flags = home_of(child)
    with serving(*flags, environ=environ) as server:
        body = {"prompt": "Hello"}
        connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        payload = json.dumps(body).encode()
        connection.sendall(
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(payload), payload)
        )
        server.wait_for_log("run ")
        until(lambda: _collected(environ))
        children = _left(environ)
        server.process.kill()
        gone, alive = psutil.wait_procs(children, timeout=30)
        connection.close()
    assert alive == []
    assert gone
    run = Path(environ["DEMO_API_STATE_DIR"]) / "runs" / _batch_ids(environ)[0]
    assert not (run / "prompts.json").exists()
    assert (Path(flags[1]) / "device_closed").exists() == (child == "closes_device_slowly")


def test_a_second_interrupt_does_not_break_off_the_clean_up(
    environ: dict[str, str], home_of: Callable[[str], list[str]]
) -> None:
    """As the kernel sends it when a server of many threads is killed."""
    flags = home_of("closes_device_slowly")
    process = subprocess.Popen([*DEMO_API, "run", *flags, "Hello"], env=environ, stderr=subprocess.DEVNULL)
    until(lambda: _collected(environ))
    (child,) = _left(environ)
    child.send_signal(signal.SIGINT)
    pause(0.5)
    child.send_signal(signal.SIGINT)
    process.wait(60)
    assert (Path(flags[1]) / "device_closed").exists()


def _collected(environ: dict[str, str]) -> bool:
    logs = (Path(environ["DEMO_API_STATE_DIR"]) / "runs").glob("*/stderr.txt")
    return any("Starting decode loop" in log.read_text() for log in logs)


def test_a_run_started_with_sigint_ignored_still_closes_the_device(
    environ: dict[str, str], home_of: Callable[[str], list[str]]
) -> None:
    flags = home_of("closes_device_slowly")
    environ["DEMO_API_RUN_TIMEOUT"] = "8"
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *DEMO_API, "run", *flags, "Hello"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert (Path(flags[1]) / "device_closed").exists()


NOT_SERVED = {
    "no script": (
        ["--demo-home", "{tmp}", "--llama-dir", "{model}"],
        "There is no models/tt_transformers/demo/simple_text_demo.py",
        "--demo-home",
    ),
    "no model": (["--model-dir", "{tmp}"], "The small model is not in", "demo-api model pull"),
    "no such model": (["--llama-dir", "{tmp}/none"], "does not exist", "one GGUF file"),
    "no interpreter": (["--python", "{tmp}/python", "--llama-dir", "{model}"], "cannot be executed", "DEMO_API_PYTHON"),
    "an address that is none": (
        ["--host", "256.256.256.256", "--insecure", "--llama-dir", "{model}"],
        "cannot be used",
        "--host",
    ),
    "other machines without keys": (
        ["--host", "0.0.0.0", "--llama-dir", "{model}"],
        "Other machines could reach 0.0.0.0, and no keys are set",
        "--keys-file",
    ),
    "no file of keys": (["--keys-file", "{tmp}/none", "--llama-dir", "{model}"], "No such file", "one per line"),
}


@pytest.mark.parametrize(("words", "sentence", "next_step"), NOT_SERVED.values(), ids=NOT_SERVED)
def test_what_cannot_be_served_is_told_before_anything_is_served(
    environ: dict[str, str], tmp_path: Path, model_dir: Path, words: list[str], sentence: str, next_step: str
) -> None:
    flags = [word.format(tmp=tmp_path, model=model_dir) for word in words]
    done = demo_api("serve", "--port", "0", *flags, environ=environ)
    assert done.returncode == 3
    first, second = done.stderr.strip().splitlines()
    assert sentence in first
    assert next_step in second
    assert "Endpoints" not in done.stdout


def test_a_port_in_use_is_told(environ: dict[str, str], model_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = demo_api("serve", "--port", port, "--llama-dir", str(model_dir), environ=environ)
    assert done.returncode == 3
    assert f"127.0.0.1:{port} cannot be used: Address already in use" in done.stderr


EXIT_CODES = {
    "passes": (0, "ok: Hello", ""),
    "fails": (1, "", ""),
    "skips": (1, "", ""),
    "segfaults": (1, "", "Segmentation fault"),
    "hangs": (4, "", "longer than 2 s"),
}


@pytest.mark.parametrize("child", EXIT_CODES)
def test_run_prints_the_answer_and_exits_by_the_outcome(
    environ: dict[str, str], home_of: Callable[[str], list[str]], child: str
) -> None:
    exit_code, stdout, stderr = EXIT_CODES[child]
    environ["DEMO_API_RUN_TIMEOUT"] = "2" if child == "hangs" else "60"
    done = demo_api("run", *home_of(child), "Hello", environ=environ)
    assert (done.returncode, done.stdout.strip()) == (exit_code, stdout), done.stderr
    assert stderr in done.stderr
    assert "Traceback" not in done.stderr
    assert _left(environ) == []


@pytest.mark.parametrize("prompt", ["Say hi [/INST]", "[red]x[/b]", "[link=file:///etc]x"])
def test_run_shows_brackets_as_they_are(
    environ: dict[str, str], home_of: Callable[[str], list[str]], prompt: str
) -> None:
    done = demo_api("run", *home_of("passes"), prompt, environ=environ)
    assert (done.returncode, done.stdout.strip()) == (0, f"ok: {prompt}"), done.stderr


def test_run_json_is_what_chat_answers(environ: dict[str, str], home_of: Callable[[str], list[str]]) -> None:
    good = demo_api("run", "--json", *home_of("passes"), "Hello", environ=environ)
    assert json.loads(good.stdout)["response"] == "ok: Hello"
    bad = demo_api("run", "--json", *home_of("exits_42"), "Hello", environ=environ)
    assert json.loads(bad.stdout)["code"] == "crashed"
    assert bad.returncode == 1
    refused = demo_api("run", "--json", "--max-tokens", "0", *home_of("skips"), "Hello", environ=environ)
    assert json.loads(refused.stdout)["field"] == "max_tokens"
    assert refused.returncode == 2


@pytest.mark.parametrize("words", [["--max-tokens", "0", "Hello"], ["--temperature", "nan", "Hello"], [" "], []])
def test_run_refuses_bad_input(environ: dict[str, str], model_dir: Path, words: list[str]) -> None:
    done = demo_api("run", "--llama-dir", str(model_dir), *words, environ=environ)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_run_is_interrupted_by_ctrl_c(environ: dict[str, str], home_of: Callable[[str], list[str]]) -> None:
    flags = home_of("closes_device_slowly")
    process = subprocess.Popen([*DEMO_API, "run", *flags, "Hello"], env=environ, stderr=subprocess.PIPE, text=True)
    until(lambda: _collected(environ))
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130, stderr
    assert (Path(flags[1]) / "device_closed").exists()
    assert _left(environ) == []


EMPTY_WORDS = {
    "smoke --url": (["smoke", "--url", ""], "--url is empty."),
    "smoke --url=": (["smoke", "--url="], "--url is empty."),
    "smoke --prompts": (["smoke", "--prompts", ""], "--prompts is empty."),
    "smoke --junit-xml": (["smoke", "--junit-xml", " "], "--junit-xml is empty."),
    "smoke --demo-home": (["smoke", "--demo-home", ""], "--demo-home is empty."),
    "compare --demo": (["compare", "--demo", "", "--direct", "http://127.0.0.1:1"], "--demo is empty."),
    "compare --json": (["compare", "--start", "--json", ""], "--json is empty."),
    "run --llama-dir": (["run", "--llama-dir", "", "Hello"], "--llama-dir is empty."),
    "serve --port": (["serve", "--port", ""], "--port is empty."),
    "device reset": (["device", "reset", ""], "An argument is empty."),
    "model path": (["model", "path", "--model-dir", ""], "--model-dir is empty."),
    "doctor --python": (["doctor", "--python", ""], "--python is empty."),
}


@pytest.mark.parametrize(("words", "sentence"), EMPTY_WORDS.values(), ids=EMPTY_WORDS)
def test_what_is_given_empty_is_wrong_use(environ: dict[str, str], words: list[str], sentence: str) -> None:
    done = demo_api(*words, environ=environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"demo-api: {sentence}\nGive it a value, or leave it out.\n"


WRONG_VALUES = {
    "serve --port": (["serve", "--port", "99999"], {}, "DEMO_API_PORT or --port is '99999'"),
    "serve --engine": (["serve", "--engine", "foo"], {}, "'foo'"),
    "serve, variable": (["serve"], {"DEMO_API_ENGINE": "foo"}, "DEMO_API_ENGINE or --engine is 'foo'"),
    "serve, keys": (["serve"], {"DEMO_API_KEYS": "short"}, "DEMO_API_KEYS is not usable"),
    "run": (["run", "--run-timeout", "soon", "Hello"], {}, "DEMO_API_RUN_TIMEOUT or --run-timeout is 'soon'"),
    "smoke": (["smoke"], {"DEMO_API_MAX_BATCH": "33"}, "DEMO_API_MAX_BATCH or --max-batch is '33'"),
    "compare": (["compare", "--start", "--slots", "0"], {}, "DEMO_API_SLOTS or --slots is '0'"),
    "doctor": (["doctor"], {"DEMO_API_PORT": "http"}, "The demo cannot run with these settings: see settings."),
    "model path": (["model", "path"], {"DEMO_API_MODEL_DIR": "~nobody-at-all/x"}, "DEMO_API_MODEL_DIR"),
    "device status": (["device", "status"], {"DEMO_API_DEVICES": "a/b"}, "DEMO_API_DEVICES or --devices is 'a/b'"),
}


@pytest.mark.parametrize(("words", "given", "sentence"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_wrong_use_on_every_command(
    environ: dict[str, str], words: list[str], given: dict[str, str], sentence: str
) -> None:
    done = demo_api(*words, environ=environ | given)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize("command", ["smoke", "compare --start", "serve", "device status", "run Hello", "model path"])
def test_a_variable_that_is_empty_is_wrong_use(environ: dict[str, str], command: str) -> None:
    done = demo_api(*command.split(), environ=environ | {"DEMO_API_DEMO_HOME": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "demo-api: DEMO_API_DEMO_HOME is empty.\nGive it a value, or unset it.\n"


def test_a_prompt_that_ends_like_a_flag_is_a_prompt(
    environ: dict[str, str], home_of: Callable[[str], list[str]]
) -> None:
    done = demo_api("run", *home_of("passes"), "--", "--url=", environ=environ)
    assert (done.returncode, done.stdout) == (0, "ok: --url=\n"), done.stderr


HOMELESS = {
    "device status": (3, "The ledger /dev/null/HOME-is-not-set/demo-api/ledger.db cannot be opened: Not a directory."),
    "model path": (3, "The small model is not in /dev/null/HOME-is-not-set/demo-api/models yet."),
    "smoke --url http://127.0.0.1:1": (2, None),
    "compare --demo http://127.0.0.1:1 --direct http://127.0.0.1:1": (2, "There is no server at http://127.0.0.1:1"),
}


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can become a user without an entry in passwd")
@pytest.mark.parametrize(("command", "expected"), HOMELESS.items(), ids=HOMELESS)
def test_a_user_without_a_home_is_stopped_only_by_what_needs_it(command: str, expected: tuple[int, str | None]) -> None:
    environ = {"PATH": os.environ["PATH"]}
    words = [*DEMO_API, *command.split()]
    # With the superuser's right to read: the interpreter is in somebody's home.
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    nobody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *rights]
    done = subprocess.run([*nobody, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
    code, sentence = expected
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert sentence is None or f"demo-api: {sentence}" in done.stderr


def test_parse_prints_one_json_object(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('[{"prompt": "Hello"}]')
    (tmp_path / "stdout.txt").write_text("")
    (tmp_path / "stderr.txt").write_text("")
    words = [f"--{name}={tmp_path / name}.txt" for name in ("stdout", "stderr")]
    done = demo_api("parse", f"--prompts={tmp_path / 'prompts.json'}", *words, "--exit-code=-9", environ=environ)
    assert done.returncode == 0
    parsed = json.loads(done.stdout)
    assert set(parsed) == {"status", "error", "answers", "metrics", "demo_device", "demo_model"}
    assert (parsed["status"], parsed["error"]["code"]) == ("failed", "interrupted")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"text": "a"}]', "\xff", "[" * 200_000])
def test_parse_refuses_what_is_no_prompt_file(environ: dict[str, str], tmp_path: Path, content: str) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(content, encoding="latin-1")
    done = demo_api(
        "parse", f"--prompts={prompts}", f"--stdout={prompts}", f"--stderr={prompts}", "--exit-code=0", environ=environ
    )
    assert done.returncode == 2
    assert "is no prompt file" in done.stderr


def test_model_pull_again_does_nothing_and_path_prints_it(environ: dict[str, str], model_dir: Path) -> None:
    before = [path.stat().st_mtime_ns for path in model_dir.iterdir()]
    assert demo_api("model", "pull", environ=environ).stdout.strip() == str(model_dir)
    assert demo_api("model", "path", environ=environ).stdout.strip() == str(model_dir)
    assert [path.stat().st_mtime_ns for path in model_dir.iterdir()] == before


def test_model_path_without_a_model_says_how_to_get_it(environ: dict[str, str], tmp_path: Path) -> None:
    done = demo_api("model", "path", "--model-dir", str(tmp_path), environ=environ)
    assert done.returncode == 3
    assert "demo-api model pull" in done.stderr


@pytest.fixture
def doubted(environ: dict[str, str], settings: Callable[..., Settings]) -> dict[str, str]:
    """The environment of a user whose device is suspect."""
    states = Ledger(settings()).devices
    states.set("device", "suspect", "A child was killed.")
    return environ


def test_device_status_tells_the_state_and_the_reason(doubted: dict[str, str]) -> None:
    devices = {"DEMO_API_DEVICES": "device; other"}
    done = demo_api("device", "status", environ=doubted | devices)
    assert (done.returncode, done.stdout) == (0, "device: suspect: A child was killed.\nother: free\n")


def test_device_clear_takes_the_doubt_back(doubted: dict[str, str]) -> None:
    assert demo_api("device", "clear", environ=doubted).stdout == "device: free\n"
    assert demo_api("device", "status", environ=doubted).stdout == "device: free\n"


def test_device_reset_runs_the_users_command(doubted: dict[str, str], tmp_path: Path) -> None:
    words = ["--reset-command", f"touch {tmp_path / 'reset'}"]
    done = demo_api("device", "reset", *words, environ=doubted)
    assert (done.returncode, done.stdout) == (0, "device: free\n")
    assert (tmp_path / "reset").exists()


def test_device_reset_that_does_not_help_says_so(doubted: dict[str, str]) -> None:
    done = demo_api("device", "reset", "--reset-command", "false", environ=doubted)
    assert done.returncode == 1
    assert "The device device is failed: `false` ended with exit code 1: it said nothing" in done.stderr
    assert demo_api("device", "status", environ=doubted).stdout.startswith("device: failed: `false`")


def test_device_reset_waits_for_nobody(doubted: dict[str, str], settings: Callable[..., Settings]) -> None:
    with devices_of(settings())[0].wait_for_lock(seconds=1, given_up=threading.Event()):
        done = demo_api("device", "reset", "--reset-command", "true", environ=doubted)
        told = demo_api("device", "status", environ=doubted).stdout
    assert done.returncode == 1
    assert "The device device is in use." in done.stderr
    assert told == "device: suspect (a child is using it): A child was killed.\n"


REFUSED = {
    "no command": (["reset"], 3, "DEMO_API_RESET_COMMAND"),
    "no such device": (["clear", "other"], 2, "There is no device other.\nName one of: device."),
    "no such device to reset": (["reset", "foo"], 2, "There is no device foo.\nName one of: device."),
    "one of several": (["clear", "--devices", "a; b"], 2, "Name one of: a, b."),
    "not a device name": (["status", "--devices", "a/b"], 2, "DEMO_API_DEVICES"),
}


@pytest.mark.parametrize(("words", "exit_code", "told"), REFUSED.values(), ids=REFUSED)
def test_a_device_command_that_cannot_be_done_says_what_can(
    environ: dict[str, str], words: list[str], exit_code: int, told: str
) -> None:
    done = demo_api("device", *words, environ=environ)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert told in done.stderr


# Help, version, completion


def _help(command: str) -> str:
    return " ".join(CliRunner().invoke(main, [command, "--help"]).stdout.split())


def test_the_help_of_serve_has_groups_with_choices_and_defaults() -> None:
    shown = _help("serve")
    titles = [shown.index(f" {title}: --") for title in GROUPS]
    assert titles == sorted(titles)
    assert sorted(name for members in GROUPS.values() for name in members) == sorted(flag_names())
    assert "--engine [demo|direct] `demo` runs" in shown
    assert "--port VALUE Port to listen on; 0 takes any free one. [default: 8080; DEMO_API_PORT]" in shown
    assert "--insecure Accept requests" in shown
    assert "--fail-fast [true|false] Whether" in shown


@pytest.mark.parametrize(
    ("command", "there", "missing"),
    [
        ("run", ["--demo-home", "--run-timeout", "--keep-runs"], ["--port", "--slots", "--cors-origins", "--warm"]),
        ("smoke", ["--demo-home", "--max-batch", "--state-dir"], ["--host", "--drain", "--lease", "--reset-command"]),
        ("compare", ["--demo-home", "--slots", "--warm"], ["--port", "--insecure", "--keep-days", "--log-format"]),
    ],
    ids=["run", "smoke", "compare"],
)
def test_a_command_lists_the_settings_that_matter_to_it(command: str, there: list[str], missing: list[str]) -> None:
    shown = _help(command)
    assert [flag for flag in there if f" {flag} " not in shown] == []
    assert [flag for flag in missing if f" {flag} " in shown] == []


def test_insecure_needs_no_value(environ: dict[str, str], tmp_path: Path) -> None:
    words = ["--port", "0", "--insecure", "--host", "256.256.256.256", "--llama-dir", str(tmp_path)]
    (tmp_path / "model.gguf").touch()
    assert "256.256.256.256:0 cannot be used" in demo_api("serve", *words, environ=environ).stderr
    off = demo_api("serve", *words, "--insecure=false", environ=environ)
    assert "no keys are set" in off.stderr


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_has_a_short_flag(flag: str) -> None:
    assert re.fullmatch(r"demo-api, version \S+\n", CliRunner().invoke(main, [flag]).stdout)


COMPLETED = {
    "commands": ([], "dev", [("plain", "device")]),
    "subcommands": (["device"], "", [("plain", name) for name in ("clear", "drain", "reset", "resume", "status")]),
    "choices": (["serve", "--engine"], "d", [("plain", "demo"), ("plain", "direct")]),
    "paths": (["serve", "--demo-home"], "/", [("file", "/")]),
}


@pytest.mark.parametrize(("words", "begun", "offered"), COMPLETED.values(), ids=COMPLETED)
def test_a_shell_completes(words: list[str], begun: str, offered: list[tuple[str, str]]) -> None:
    completing = BashComplete(main, {}, "demo-api", "_DEMO_API_COMPLETE")
    assert [(each.type, each.value) for each in completing.get_completions(words, begun)] == offered
