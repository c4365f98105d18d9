"""What ``demo-api doctor`` sees, on real demo homes, interpreters, models, locks and ports."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.demo_homes import SCRIPT, make_home
from support.serving import Server
from support.waiting import join, until

from demo_api.cli.doctor import child_checks, machine_checks, probe
from demo_api.cli.doctor.command import CHECKS, SUBJECTS, examine
from demo_api.cli.doctor.demo_checks import NEEDED_OPTIONS
from demo_api.cli.doctor.finding import Finding
from demo_api.cli.doctor.machine_checks import DiskSpace, hugepages
from demo_api.cli.doctor.probe import Setup
from demo_api.config import CPU_DEMO_HOME, Settings
from demo_api.demo import command, home
from demo_api.demo.model_shape import shape_of
from demo_api.demo.run_folder import RunFolder
from demo_api.devices.lock import devices_of
from demo_api.web.parse import check_request

DEMO_API = [sys.executable, "-m", "demo_api"]
PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
HUGGING_FACE = ("config.json", "tokenizer.json", "model.safetensors")
META = ("params.json", "tokenizer.model", "consolidated.00.pth")
CPU_SUBJECTS = [
    "settings",
    "demo_script",
    "tilde",
    "model",
    "model_files",
    "interpreter",
    "packages",
    "import",
    "collection",
    "ci",
    "device_use",
    "model_process",
    "disk",
    "port",
]


def make_files(folder: Path, names: tuple[str, ...], content: bytes = b"{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return folder


def make_package(folder: Path, module: str, distribution: str, version: str) -> Path:
    """Lays out an installed package: its module, and the metadata that tell whose it is."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").touch()
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (metadata / "RECORD").write_text(f"{module}/__init__.py,,\n")
    return folder


def make_python(folder: Path, *packages: Path, bare: bool = False) -> Path:
    """An interpreter of its own, with these folders on its path, and the tester's packages unless it is bare."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "more.pth").write_text("".join(f"{path}\n" for path in packages))
    if not bare:
        for path in Path(pytest.__file__).parent.parent.iterdir():
            if path.suffix != ".pth" and not path.name.startswith("numpy") and not _is_plugin(path):
                (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


def _is_plugin(metadata: Path) -> bool:
    # Without their metadata pytest does not find its plugins, which take a second to load.
    entries = metadata / "entry_points.txt"
    return entries.is_file() and "[pytest11]" in entries.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def numpy_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter as tt-metal's environment has it, as far as anybody looks."""
    folder = tmp_path_factory.mktemp("python")
    return make_python(folder / "env", make_package(folder / "packages", "numpy", "numpy", "1.26.4"))


@pytest.fixture
def setup_of(tmp_path: Path, numpy_1: Path) -> Callable[..., Setup]:
    """Makes a set-up around a demo home, on a machine that has a device: all in the test's folder, and in order."""

    def make(
        child: str = "passes",
        generation: str = "2025",
        environ: dict[str, str] | None = None,
        collect: bool = False,
        **flags: object,
    ) -> Setup:
        variable = "llama_dir" if generation == "2025" else "hf_model"
        model = make_files(tmp_path / "model", META if generation == "2025" else HUGGING_FACE)
        if not (tmp_path / "home").exists():
            make_home(tmp_path / "home", child, generation=generation)
            make_files(tmp_path / "tenstorrent", ("0",))
            (tmp_path / "hugepages").mkdir()
            (tmp_path / "pages").write_text("4\n")
            (tmp_path / "meminfo").write_text("HugePages_Total:       0\nHugepagesize:       2048 kB\n")
        given = {
            "demo_home": tmp_path / "home",
            "python": numpy_1,
            "state_dir": tmp_path / "state",
            "port": 0,
            "stop_grace": 1,
            "reset_command": "true",
        }
        if not {"llama_dir", "hf_model"} & set(flags):
            given[variable] = str(model)
        basic = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return Setup(
            Settings.load(given | flags, basic | (environ or {})),
            collect=collect,
            device_files=tmp_path / "tenstorrent",
            meminfo=tmp_path / "meminfo",
            one_gib_pages=tmp_path / "pages",
            hugepages=tmp_path / "hugepages",
        )

    return make


def found(setup: Setup, subject: str) -> Finding:
    ((_, finding),) = examine(setup, {subject: CHECKS[subject]})
    assert (finding.next_step == "") == (finding.level == "ok")
    return finding


def cpu(**flags: object) -> Setup:
    return Setup(Settings.load({"port": 0} | flags))


def doctor(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO_API, "doctor", *words], env=environ, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def environ(tmp_path: Path, model_dir: Path) -> dict[str, str]:
    """The environment of a user who has nothing yet but the small model, and whose Python writes its caches."""
    (tmp_path / "user").mkdir()
    (tmp_path / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONDONTWRITEBYTECODE")}
    return kept | {
        "HOME": str(tmp_path / "user"),
        "TMPDIR": str(tmp_path / "tmp"),
        "LLAMA_DIR": str(model_dir),
        "DEMO_API_PORT": "0",
    }


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_check_is_documented(subject: str) -> None:
    assert f"| `{subject}` |" in PAGE


def test_the_page_documents_no_check_that_is_not_there() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) == list(SUBJECTS)


def test_the_cpu_edition_is_in_order_and_is_spared_the_checks_of_a_device(environ: dict[str, str]) -> None:
    done = doctor("--json", environ=environ)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["ok"]) == (0, "", True)
    assert [each["check"] for each in report["checks"]] == CPU_SUBJECTS
    assert {each["level"] for each in report["checks"]} == {"ok"}
    assert all(set(each) == {"check", "level", "finding", "next_step"} for each in report["checks"])


def test_a_line_for_each_finding_without_colour_where_no_terminal_is(environ: dict[str, str]) -> None:
    done = doctor(environ=environ | {"CI": "true", "FORCE_COLOR": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line[0] in "✓!"] == CPU_SUBJECTS
    warned = next(number for number, line in enumerate(lines) if line.startswith("! ci"))
    assert lines[warned + 1].strip() == "→ Unset CI before you start the demo by hand."
    assert "\x1b" not in done.stdout


def test_a_terminal_gets_colours(environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    words = [*DEMO_API, "doctor", "--port", "abc"]
    done = subprocess.run(words, env=environ | {"TERM": "xterm"}, stdout=theirs, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    printed = os.read(ours, 2**16).decode()
    os.close(ours)
    assert done.returncode == 2
    assert "\x1b[1;31m✗" in printed


def _listing(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time; of folders only that they are there."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)
        for folder in folders
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("edition", ["the CPU edition", "a demo home, collected"])
def test_nothing_is_changed(environ: dict[str, str], tmp_path: Path, edition: str) -> None:
    words = []
    if edition != "the CPU edition":
        make_home(tmp_path / "home", "passes")
        words = ["--collect", "--demo-home", str(tmp_path / "home")]
    before = _listing(tmp_path, CPU_DEMO_HOME)
    done = doctor("--json", *words, environ=environ)
    levels = {each["check"]: each["level"] for each in json.loads(done.stdout)["checks"]}
    assert levels["collection"] == "ok"
    assert _listing(tmp_path, CPU_DEMO_HOME) == before


SETTINGS = {
    "no number": ("DEMO_API_PORT", "abc", "DEMO_API_PORT or --port is 'abc'"),
    "not a device name": ("DEMO_API_DEVICES", "a/b", "is not a device name"),
    "nobody's home": ("DEMO_API_DEMO_HOME", "~nobody-at-all/tt-metal", "DEMO_API_DEMO_HOME or --demo-home"),
}


@pytest.mark.parametrize(("variable", "value", "sentence"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_is_a_finding(environ: dict[str, str], variable: str, value: str, sentence: str) -> None:
    done = doctor("--json", environ=environ | {variable: value})
    (finding,) = json.loads(done.stdout)["checks"]
    assert (finding["check"], finding["level"], done.returncode) == ("settings", "error", 2)
    assert sentence in finding["finding"]
    assert "see settings" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_ends_with_3_and_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    done = doctor("--demo-home", str(tmp_path), environ=environ)
    assert done.returncode == 3
    assert "✗ demo_script" in done.stdout
    assert re.search(r"^demo-api: .*see demo_script, .*device_files", done.stderr)


def test_wrong_use_ends_with_2(environ: dict[str, str]) -> None:
    assert doctor("everything", environ=environ).returncode == 2


def test_a_check_that_fails_itself_is_named_and_stops_no_other(setup_of: Callable[..., Setup]) -> None:
    def breaks(setup: Setup) -> Finding:
        raise ZeroDivisionError(setup.settings.port)

    findings = dict(examine(setup_of(), {"numpy": breaks, "ci": CHECKS["ci"]}))
    assert {subject: finding.level for subject, finding in findings.items()} == {"numpy": "warning", "ci": "ok"}
    assert "This check itself failed: ZeroDivisionError: 0" in findings["numpy"].sentence


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_a_demo_home_in_order_has_no_finding_but_that_nothing_was_collected(
    setup_of: Callable[..., Setup], generation: str
) -> None:
    findings = dict(examine(setup_of(generation=generation)))
    assert list(findings) == list(CHECKS)
    rest = {name: each.sentence for name, each in findings.items() if each.level != "ok" and name != "disk"}
    assert rest == {"collection": "Not tried: with ttnn, collecting the demo's tests opens the device."}


def test_a_folder_without_the_demo_is_found_once(tmp_path: Path, setup_of: Callable[..., Setup]) -> None:
    findings = dict(examine(setup_of(demo_home=tmp_path / "none")))
    assert findings["demo_script"].level == "error"
    assert "DEMO_API_DEMO_HOME" in findings["demo_script"].next_step
    assert not {"packages", "import", "options", "collection"} & set(findings)


MODELS = {
    "2025, LLAMA_DIR": ("2025", {"llama_dir": "/"}, "ok", "reads LLAMA_DIR or HF_MODEL. The child gets LLAMA_DIR=/."),
    "2025, HF_MODEL": ("2025", {"hf_model": "a/b"}, "ok", "The child gets HF_MODEL=a/b."),
    "2025, both": ("2025", {"llama_dir": "/", "hf_model": "a/b"}, "warning", "by hand refuses"),
    "2025, none": ("2025", {"llama_dir": None, "hf_model": None}, "error", "No model is set"),
    "2026, HF_MODEL": ("2026", {"hf_model": "a/b"}, "ok", "reads HF_MODEL only. The child gets HF_MODEL=a/b."),
    "2026, both": ("2026", {"llama_dir": "/", "hf_model": "a/b"}, "ok", "LLAMA_DIR is set too, and is not read."),
    "2026, only LLAMA_DIR": ("2026", {"llama_dir": "/"}, "error", "reads HF_MODEL only"),
    "nobody's folder": ("2026", {"hf_model": "~nobody-at-all/b"}, "error", "HF_MODEL is ~nobody-at-all/b"),
}


@pytest.mark.parametrize(("generation", "flags", "level", "sentence"), MODELS.values(), ids=MODELS)
def test_which_variable_is_read_and_what_is_set(
    setup_of: Callable[..., Setup], generation: str, flags: dict[str, str | None], level: str, sentence: str
) -> None:
    finding = found(setup_of(generation=generation, **flags), "model")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding


TILDES = {
    "none": ({"TT_CACHE_PATH": "/cache"}, {}, "ok", ""),
    "of the demo's cache": ({"TT_CACHE_PATH": "~/cache"}, {}, "warning", "TT_CACHE_PATH={home}/cache"),
    "of the model, by hand": ({"LLAMA_DIR": "~/model"}, {}, "warning", "LLAMA_DIR={home}/model"),
    "nobody's": ({"HF_HOME": "~nobody-at-all/x"}, {}, "warning", "Write the whole path"),
    "of a device": ({}, {"devices": "a TT_X=~/x"}, "warning", "TT_X={home}/x"),
    "of a command": ({}, {"reset_command": "~/tt-smi -r"}, "warning", "DEMO_API_RESET_COMMAND={home}/tt-smi -r"),
    "of somebody else": ({"OTHER": "~/x"}, {}, "ok", ""),
}


@pytest.mark.parametrize(("environ", "flags", "level", "next_step"), TILDES.values(), ids=TILDES)
def test_a_tilde_that_nobody_expands(
    setup_of: Callable[..., Setup], environ: dict[str, str], flags: dict[str, str], level: str, next_step: str
) -> None:
    finding = found(setup_of(environ=environ, **flags), "tilde")
    assert finding.level == level
    assert next_step.format(home=Path.home()) in finding.next_step


def _folder(names: tuple[str, ...], content: bytes = b"{}") -> Callable[[Path], Path]:
    return lambda path: make_files(path, names, content)


def _in_original(path: Path) -> Path:
    make_files(path / "original", META)
    return path


def _half_downloaded(path: Path) -> Path:
    make_files(path, HUGGING_FACE)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


POINTER = b"version https://git-lfs.github.com/spec/v1\n"
FOLDERS = {
    "Meta's": ("2025", "llama_dir", _folder(META), "ok", "is in Meta's format"),
    "Hugging Face's": ("2026", "hf_model", _folder(HUGGING_FACE), "ok", "is in Hugging Face's format"),
    "Hugging Face's, by LLAMA_DIR": ("2025", "llama_dir", _folder(HUGGING_FACE), "ok", "reads by LLAMA_DIR too"),
    "Hugging Face's, by LLAMA_DIR in 2026": ("2026", "llama_dir", _folder(HUGGING_FACE), "ok", "Hugging Face's format"),
    "Meta's, by HF_MODEL": ("2026", "hf_model", _folder(META), "error", "is in Meta's format, and HF_MODEL wants"),
    "Meta's, one folder down": ("2025", "llama_dir", _in_original, "error", "Meta's files are in"),
    "Meta's, without a tokenizer": ("2025", "llama_dir", _folder((META[0], META[2])), "error", "lacks tokenizer.model"),
    "Hugging Face's, no weights": ("2026", "hf_model", _folder(HUGGING_FACE[:2]), "error", "lacks weights"),
    "half downloaded": ("2026", "hf_model", _half_downloaded, "error", "lacks 2 of the files that its index names"),
    "Git LFS pointers": ("2025", "llama_dir", _folder(META, POINTER), "error", "holds Git LFS pointers"),
    "empty": ("2025", "llama_dir", _folder(()), "error", "lacks params.json, tokenizer.model, consolidated.*.pth"),
}


@pytest.mark.parametrize(("generation", "variable", "make", "level", "sentence"), FOLDERS.values(), ids=FOLDERS)
def test_the_format_of_a_models_folder(
    setup_of: Callable[..., Setup],
    tmp_path: Path,
    generation: str,
    variable: str,
    make: Callable[[Path], Path],
    level: str,
    sentence: str,
) -> None:
    folder = make(tmp_path / "Llama-3.2-1B-Instruct")
    finding = found(setup_of(generation=generation, **{variable: str(folder)}), "model_files")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding


NAMES = {
    "not in the cache": ("meta-llama/Llama-3.2-1B", {}, "warning", "the first run downloads it"),
    "in the cache": ("owner/model", {}, "ok", "is in the cache"),
    "offline": ("meta-llama/Llama-3.2-1B", {"HF_HUB_OFFLINE": "1"}, "error", "HF_HUB_OFFLINE forbids"),
    "a folder that is not there": ("/models/Llama", {}, "error", "neither a folder nor a Hugging Face name"),
}


@pytest.mark.parametrize(("name", "environ", "level", "sentence"), NAMES.values(), ids=NAMES)
def test_a_hugging_face_name_is_looked_for_in_the_cache(
    setup_of: Callable[..., Setup], tmp_path: Path, name: str, environ: dict[str, str], level: str, sentence: str
) -> None:
    make_files(tmp_path / "hf/hub/models--owner--model/snapshots/0123", ("config.json",))
    setup = setup_of(generation="2026", hf_model=name, environ={"HF_HOME": str(tmp_path / "hf")} | environ)
    finding = found(setup, "model_files")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding


def _architecture(name: bytes) -> bytes:
    key = b"general.architecture"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(name)) + name
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + pair


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"PK\3\4" + bytes(40), "cannot be read as a GGUF file", id="another format"),
        pytest.param(_architecture(b"qwen2"), "is a model of the architecture qwen2", id="another architecture"),
    ],
)
def test_a_file_that_the_cpu_edition_cannot_run(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    finding = found(cpu(llama_dir=tmp_path), "model_files")
    assert (finding.level, sentence in finding.sentence) == ("error", True), finding


def test_a_missing_model_hides_nothing_else(tmp_path: Path) -> None:
    findings = {subject: each.level for subject, each in examine(cpu(model_dir=tmp_path, state_dir=tmp_path / "state"))}
    assert findings["model"] == "error"
    assert "model_files" not in findings
    assert {findings[name] for name in ("interpreter", "packages", "import", "collection")} == {"ok"}


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes an executable shell script to stand in an interpreter's place."""

    def make(text: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


INTERPRETERS = {
    "fails": ("echo 'libc is too old' >&2; exit 7", "exit code 7, libc is too old"),
    "says something else": ("echo hello", "exit code 0, hello"),
    "hangs": ("sleep 1000 & wait", "no answer within 0.5 s"),
}


@pytest.mark.parametrize(("text", "sentence"), INTERPRETERS.values(), ids=INTERPRETERS)
def test_an_interpreter_that_does_not_answer(
    setup_of: Callable[..., Setup],
    script: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.5 if "no answer" in sentence else 60)
    setup = setup_of(python=script(text))
    findings = dict(examine(setup))
    assert (findings["interpreter"].level, sentence in findings["interpreter"].sentence) == ("error", True)
    assert not {"packages", "import", "numpy", "collection"} & set(findings)
    assert _left(tmp_path) == []


def _left(home: Path) -> list[psutil.Process]:
    """Living processes that were started for an examination by the user whose home is in this folder."""
    return [process for process in psutil.process_iter() if _is_for(home, process)]


def _is_for(home: Path, process: psutil.Process) -> bool:
    try:
        environ = process.environ()
        return "DEMO_API_DOCTOR" in environ and environ.get("HOME", "").startswith(str(home))
    except (psutil.Error, OSError):  # gone, or a zombie
        return False


def test_ctrl_c_breaks_it_off_and_leaves_nothing(
    environ: dict[str, str], script: Callable[[str], Path], tmp_path: Path
) -> None:
    python = script("sleep 1000")
    words = [*DEMO_API, "doctor", "--python", str(python)]
    process = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: any(each.name() == "sleep" for each in psutil.Process(process.pid).children(recursive=True)))
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert (process.returncode, "Traceback" in stderr) == (130, False), stderr
    assert "interrupted" in stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert _left(tmp_path) == []


def test_an_interpreter_that_is_not_there(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    finding = found(setup_of(python=tmp_path / "none"), "interpreter")
    assert (finding.level, "cannot be executed" in finding.sentence) == ("error", True)
    assert "DEMO_API_PYTHON" in finding.next_step


def test_packages_that_the_childs_interpreter_lacks_are_named(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    bare = make_python(tmp_path / "env", bare=True)
    assert "needs loguru, pytest, which" in found(setup_of(python=bare), "packages").sentence
    finding = found(cpu(python=bare), "packages")
    assert "needs loguru, pytest, xllamacpp, which" in finding.sentence
    assert "demo-api[cpu]" in finding.next_step


def test_what_the_demo_itself_imports_is_looked_for(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of()
    demo = tmp_path / "home" / SCRIPT
    demo.write_text("import json\nimport torch\nfrom ttnn import open_device\n" + demo.read_text())
    finding = found(setup, "packages")
    assert (finding.level, "needs torch, ttnn, which" in finding.sentence) == ("error", True)


def test_a_pytest_that_is_too_old_is_found(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    old = make_package(tmp_path / "old", "pytest", "pytest", "6.2.5")
    loguru = make_package(tmp_path / "loguru", "loguru", "loguru", "0.7.3")
    finding = found(setup_of(python=make_python(tmp_path / "env", old, loguru, bare=True)), "packages")
    assert (finding.level, "pytest is 6.2.5" in finding.sentence) == ("error", True)


@pytest.fixture(scope="session")
def llama_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the package index's llama-models, which brings a package named models."""
    folder = tmp_path_factory.mktemp("hidden")
    return make_python(folder / "env", make_package(folder / "packages", "models", "llama-models", "0.3.0"))


@pytest.mark.parametrize("generation", ["2025", "2026"])
def test_llama_models_hides_the_demo_and_how_to_undo_it_is_said(
    setup_of: Callable[..., Setup], llama_models: Path, generation: str
) -> None:
    finding = found(setup_of(generation=generation, python=llama_models), "import")
    assert (finding.level, "models of llama-models hides" in finding.sentence) == ("error", True), finding
    assert f"`{llama_models} -m pip uninstall llama-models`" in finding.next_step
    assert "tt-metal's requirements" in finding.next_step


def test_llama_models_hides_the_cpu_edition_too(llama_models: Path) -> None:
    finding = found(cpu(python=llama_models), "import")
    assert finding.level == "error"
    assert finding.next_step == f"Run `{llama_models} -m pip uninstall llama-models`."


def test_a_package_models_that_nobody_has_installed_is_named_by_its_path(
    setup_of: Callable[..., Setup], tmp_path: Path
) -> None:
    make_files(tmp_path / "mine" / "models", ("__init__.py",), b"")
    finding = found(setup_of(python=make_python(tmp_path / "env", tmp_path / "mine")), "import")
    assert finding.level == "error"
    assert str(tmp_path / "mine/models/__init__.py") in finding.sentence
    assert "from the module search path" in finding.next_step


@pytest.mark.parametrize(
    ("version", "level"), [("1.26.4", "ok"), ("2.1.0", "warning"), (None, "warning")], ids=["1", "2", "none"]
)
def test_tt_metal_wants_numpy_1(
    setup_of: Callable[..., Setup], tmp_path: Path, version: str | None, level: str
) -> None:
    packages = [make_package(tmp_path / "packages", "numpy", "numpy", version)] if version else []
    finding = found(setup_of(python=make_python(tmp_path / "env", *packages, bare=True)), "numpy")
    assert finding.level == level
    assert (version or "there is none") in finding.sentence


def test_the_options_that_are_looked_for_are_those_that_the_child_gets(
    setup_of: Callable[..., Setup], tmp_path: Path
) -> None:
    demo = home.resolve(setup_of().settings)
    request = check_request({"prompt": "Hello"})
    options = command.options(shape_of([request], demo.context_length), request, RunFolder(tmp_path))
    assert {f"--{name}" for name in options} == set(NEEDED_OPTIONS)


def test_a_conftest_that_refuses_sampling_parameters_is_found(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    finding = found(setup_of(), "options")
    assert (finding.level, "type=dict, which refuses every text" in finding.sentence) == ("ok", True)
    conftest = tmp_path / "home/conftest.py"
    conftest.rename(tmp_path / "home/models/tt_transformers/demo/conftest.py")
    conftest = tmp_path / "home/models/tt_transformers/demo/conftest.py"
    conftest.write_text(conftest.read_text().replace("type=dict", "type=str"))
    assert "--sampling_params has type=str" in found(setup_of(), "options").sentence


@pytest.mark.parametrize(
    ("generation", "time", "used"),
    [
        ("2025", "before 25 November 2025", "one value for all prompts, a seed is refused"),
        ("2026", "December 2025 or January 2026", "a list with a value for each prompt, a seed is refused"),
        ("2026_02", "February 2026 or later", "a list with a value for each prompt, a seed is passed on"),
    ],
)
def test_the_checkout_s_generation_and_what_is_used_of_it_are_shown(
    setup_of: Callable[..., Setup], tmp_path: Path, generation: str, time: str, used: str
) -> None:
    setup = setup_of(generation=generation)
    sentence = found(setup, "generation").sentence
    assert time in sentence
    assert used in sentence
    assert "--use_prefetcher" not in sentence
    conftest = tmp_path / "home/conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n\ndef more(parser):\n    parser.addoption('--use_prefetcher')\n")
    assert "It has --use_prefetcher too" in found(setup, "generation").sentence


@pytest.mark.parametrize("text", ["", "def pytest_addoption(parser:"], ids=["empty", "no Python"])
def test_a_conftest_without_the_options_is_found(setup_of: Callable[..., Setup], tmp_path: Path, text: str) -> None:
    setup = setup_of()
    (tmp_path / "home/conftest.py").write_text(text)
    finding = found(setup, "options")
    assert (finding.level, "--batch_size" in finding.sentence) == ("warning", True)


TWO_TESTS = """
import demo_lines

@demo_lines.cases
def test_demo_text(batch_size): pass

@demo_lines.cases
def test_demo_image(batch_size): pass
"""
COLLECTIONS = {
    "passes": ("ok", "selects exactly one test"),
    "no_tests": ("error", "selects no tests"),
    "raises_at_import": ("error", "could not collect the demo's tests (exit code 2): "),
    "conftest_breaks": ("error", "No module named 'torch'"),
    "hangs_at_collection": ("error", "took longer than 1 s"),
}


@pytest.mark.parametrize(("child", "level", "sentence"), [(child, *rest) for child, rest in COLLECTIONS.items()])
def test_the_demos_tests_are_collected_if_asked(
    setup_of: Callable[..., Setup],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    child: str,
    level: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(child_checks, "COLLECT_SECONDS", 1 if child == "hangs_at_collection" else 60)
    finding = found(setup_of(child, collect=True), "collection")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding
    assert _left(tmp_path) == []


def test_two_tests_of_that_name_are_one_too_many(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of(collect=True)
    (tmp_path / "home" / SCRIPT).write_text(TWO_TESTS)
    assert "selects 2 tests" in found(setup, "collection").sentence


def test_nothing_is_collected_while_a_run_holds_the_device(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of(collect=True)
    (tmp_path / "state").mkdir()
    with devices_of(setup.settings)[0].wait_for_lock(seconds=1, given_up=threading.Event()):
        collected, use = found(setup, "collection"), found(setup, "device_use")
    assert (collected.level, use.level) == ("warning", "warning")
    assert "Not tried: the device is in use by a run on the device device" in collected.sentence
    assert "a run on the device device" in use.sentence


def test_no_run_begins_while_the_demo_is_collected(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of("hangs_at_collection", collect=True)
    (tmp_path / "state").mkdir()
    device = devices_of(setup.settings)[0]
    device.wait_for_lock(seconds=1, given_up=threading.Event()).__exit__(None, None, None)  # a server was there once
    thread = threading.Thread(target=lambda: list(examine(setup, {"collection": CHECKS["collection"]})))
    thread.start()
    until(lambda: device.has_child() or not thread.is_alive())
    assert device.try_lock() is None
    until(lambda: _left(tmp_path))
    for child in _left(tmp_path):
        child.kill()
    join(thread)
    assert not device.has_child()


def test_a_program_that_has_a_device_file_open_is_named(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of(collect=True)
    opened = f"file = open({str(tmp_path / 'tenstorrent/0')!r}); print('open', flush=True); input()"
    words = [sys.executable, "-c", opened]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        collected, use = found(setup, "collection"), found(setup, "device_use")
        program.kill()
    assert f"In use by {program.pid} (" in use.sentence
    assert (collected.level, f"{program.pid} (" in collected.sentence) == ("warning", True)


def test_the_latest_of_several_lost_models_is_told(setup_of: Callable[..., Setup]) -> None:
    setup = setup_of()
    for number, sentence in enumerate(["It ended by SIGKILL: loading.", "It ended by SIGSEGV: \x1b[31mhalf."]):
        folder = RunFolder.create(setup.settings.runs_dir, f"20260101-00000{number}-00000000")
        folder.tell_lost(sentence)
        os.utime(folder.path, (number, number))
    os.mkfifo(RunFolder.create(setup.settings.runs_dir, "20260101-000009-00000000").lost)  # nobody waits for this
    finding = found(setup, "model_process")
    assert finding.level == "warning"
    assert finding.sentence.endswith(
        "at 1970-01-01 00:00:01 UTC, the latest of 2 times. It ended by SIGSEGV: ?[31mhalf."
    )
    assert str(folder.stderr) in finding.next_step


SKIPS = {
    "CI=true": ({"CI": "true"}, "device", "warning", "CI=true is set"),
    "TT_GH_CI_INFRA": ({"TT_GH_CI_INFRA": "1"}, "device", "warning", "TT_GH_CI_INFRA=1 is set"),
    "CI=1, which the demo does not mind": ({"CI": "1"}, "device", "ok", ""),
    "set for a device": ({}, "a CI=true", "error", "DEMO_API_DEVICES sets CI=true for the device a"),
    "not set": ({}, "device", "ok", ""),
}


@pytest.mark.parametrize(("environ", "devices", "level", "sentence"), SKIPS.values(), ids=SKIPS)
def test_what_makes_the_demo_skip_its_test_is_found(
    setup_of: Callable[..., Setup], environ: dict[str, str], devices: str, level: str, sentence: str
) -> None:
    finding = found(setup_of(environ=environ, devices=devices), "ci")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding


def test_a_machine_without_device_files_is_found(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of()
    assert found(setup, "device_files").sentence == str(tmp_path / "tenstorrent/0")
    shutil.rmtree(tmp_path / "tenstorrent")
    finding = found(setup, "device_files")
    assert (finding.level, "modprobe tenstorrent" in finding.next_step) == ("error", True)


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may open every file")
def test_a_device_file_that_may_not_be_opened_is_found(setup_of: Callable[..., Setup], tmp_path: Path) -> None:
    setup = setup_of()
    (tmp_path / "tenstorrent/0").chmod(0)
    assert "may not open" in found(setup, "device_files").sentence


PAGES = {
    "of the default size": ("Hugepagesize:    1048576 kB\nHugePages_Total:       2\n", "", True, "2 of 1 GiB"),
    "beside smaller ones": ("Hugepagesize:       2048 kB\nHugePages_Total:       9\n", "4\n", True, "4 of 1 GiB"),
    "none": ("Hugepagesize:       2048 kB\nHugePages_Total:       9\n", "0\n", True, None),
    "a kernel that has none": ("", "", True, None),
    "not mounted": ("Hugepagesize:    1048576 kB\nHugePages_Total:       2\n", "", False, None),
}


@pytest.mark.parametrize(("meminfo", "pages", "mounted", "sentence"), PAGES.values(), ids=PAGES)
def test_hugepages_of_1_gib(
    setup_of: Callable[..., Setup], tmp_path: Path, meminfo: str, pages: str, mounted: bool, sentence: str | None
) -> None:
    setup = setup_of()
    (tmp_path / "meminfo").write_text(meminfo)
    (tmp_path / "pages").write_text(pages)
    if not mounted:
        (tmp_path / "hugepages").rmdir()
    finding = hugepages(setup)
    assert finding is not None
    assert finding.level == ("ok" if sentence else "warning")
    assert (sentence or "Wormhole wants") in finding.sentence


@pytest.mark.parametrize(
    ("reset", "there", "level", "sentence"),
    [
        pytest.param(None, False, "warning", "cannot be reset", id="not there"),
        pytest.param(None, True, "ok", "DEMO_API_RESET_COMMAND is not set", id="there"),
        pytest.param("tt-smi -r", True, "ok", "The server resets devices with `tt-smi -r`", id="set"),
        pytest.param("tt-smi -r", False, "warning", "is not a program on the PATH", id="set, not there"),
    ],
)
def test_what_can_reset_a_device(
    setup_of: Callable[..., Setup], tmp_path: Path, reset: str | None, there: bool, level: str, sentence: str
) -> None:
    if there:
        make_files(tmp_path / "bin", ("tt-smi",), b"#!/bin/sh\ntouch was-run\n")
        (tmp_path / "bin/tt-smi").chmod(0o755)
    finding = found(setup_of(environ={"PATH": str(tmp_path / "bin")}, reset_command=reset), "tt_smi")
    assert (finding.level, sentence in finding.sentence) == (level, True), finding
    assert list(tmp_path.rglob("was-run")) == []


def test_room_is_looked_for_where_it_will_be_needed(tmp_path: Path) -> None:
    folder = tmp_path / "not/made/yet"
    plenty, little, none = (
        DiskSpace("runs", folder, "DEMO_API_X", *sizes) for sizes in ((1, 0), (2**80, 1), (2**80,) * 2)
    )
    assert machine_checks.judge_rooms([plenty]).level == "ok"
    assert machine_checks.judge_rooms([plenty, little]).level == "warning"
    finding = machine_checks.judge_rooms([little, none])
    assert (finding.level, "DEMO_API_X" in finding.next_step) == ("error", True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = found(cpu(state_dir=tmp_path / "file/state"), "disk")
    assert (finding.level, "DEMO_API_STATE_DIR" in finding.next_step) == ("error", True)


ROOMS = {
    "a model's own folder": ("2025", {}, {}, ["state", "model"]),
    "TT_CACHE_PATH": ("2025", {"TT_CACHE_PATH": "/cache"}, {}, ["state", "/cache"]),
    "Hugging Face": ("2026", {}, {}, ["state", "home/model_cache"]),
    "a name": ("2026", {"HF_HOME": "/hf"}, {"hf_model": "a/b"}, ["state", "home/model_cache", "/hf/hub"]),
    "no model": ("2026", {}, {"hf_model": None}, ["state"]),
}


@pytest.mark.parametrize(("generation", "environ", "flags", "folders"), ROOMS.values(), ids=ROOMS)
def test_the_caches_of_each_generation(
    setup_of: Callable[..., Setup],
    tmp_path: Path,
    generation: str,
    environ: dict[str, str],
    flags: dict[str, str],
    folders: list[str],
) -> None:
    setup = setup_of(generation=generation, environ=environ, **flags)
    assert [room.folder for room in machine_checks.rooms(setup.settings)] == [tmp_path / folder for folder in folders]


def test_the_small_model_needs_room_until_it_is_there(tmp_path: Path, model_dir: Path) -> None:
    def what(**flags: object) -> list[str]:
        return [room.what for room in machine_checks.rooms(cpu(**flags).settings)]

    assert what(model_dir=tmp_path) == ["state", "model"]
    assert what(model_dir=model_dir.parent) == ["state"]
    assert what(llama_dir=tmp_path) == ["state"]


def test_a_port_that_another_program_has_is_found_with_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = found(cpu(port=taken.getsockname()[1]), "port")
    assert finding.level == "error"
    assert f"Address already in use by {os.getpid()} (" in finding.sentence


def test_a_port_on_which_a_server_of_ours_answers_is_worth_a_look(
    serve: Callable[..., Server], settings: Callable[..., Settings], model_dir: Path
) -> None:
    server = serve(settings(llama_dir=model_dir))
    finding = found(cpu(port=int(server.url.rpartition(":")[2])), "port")
    assert (finding.level, "A demo_api server answers" in finding.sentence) == ("warning", True)


def test_an_address_that_is_none_is_found() -> None:
    assert found(cpu(host="256.256.256.256", port=8080), "port").level == "error"


def test_a_free_port_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    assert found(cpu(port=number), "port").level == "ok"
    socket.create_server(("127.0.0.1", number)).close()
