"""Where the demo, its interpreter and its model are: looked up in the settings and on the disk, nothing is run."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_api.config import Settings
from demo_api.cpu_demo.models.tt_transformers.tt.gguf import read_metadata
from demo_api.demo import small_model as weights
from demo_api.demo.model_shape import sequence_limit
from demo_api.errors import SetupError
from demo_api.messages.health import ModelPlace

SCRIPT = Path("models/tt_transformers/demo/simple_text_demo.py")
MODEL_CONFIG = Path("models/tt_transformers/tt/model_config.py")

# A checkout of before 25 November 2025 asks the environment for LLAMA_DIR; a later one never names it in such a call.
_ASKS_FOR_LLAMA_DIR = re.compile(r"""(getenv|environ)[^\n]*["']LLAMA_DIR["']""")

# A demo whose device samples takes lists, and asks whether it was given one; an earlier one compares the value with 0.
_ASKS_FOR_A_LIST = re.compile(r"isinstance\([^\n]*temperature[^\n]*\b[Ll]ist\b")

# A demo of February 2026 or later hands a seed on to the device, if its sampling parameters have one.
_READS_A_SEED = re.compile(r"""sampling_params(\[|\.get\()["']seed["']""")

_SET_MODEL = "Set it to the model's folder."
_SET_GGUF = "Unset it to use the small model, or set it to a folder with one GGUF file, or to the file."


@dataclass(frozen=True)
class ResolvedDemo:
    """The demo that a batch is run with.

    Attributes:
        home: the folder that the child runs in.
        python: the child's interpreter.
        model_variable: ``LLAMA_DIR`` or ``HF_MODEL``, whichever this demo reads.
        model: the value of that variable.
        context_length: tokens of the longest sequence that the model was made for; None where its files do not say.
        is_cpu_demo: whether it is the CPU edition.
        takes_lists: whether its sampling parameters are lists with a value for each user; else one value is for all.
        takes_seed: whether it does something with a seed.
        inherited: the environment that the child's is built from.
    """

    home: Path
    python: Path
    model_variable: str
    model: str
    context_length: int | None
    is_cpu_demo: bool
    takes_lists: bool
    takes_seed: bool
    model_files: Sequence[tuple[str, int, int]]
    inherited: Mapping[str, str]

    @property
    def model_name(self) -> str:
        """As ``model_name`` has it."""
        return model_name(self.model)

    @property
    def sequence_limit(self) -> int:
        """Most tokens of a prompt and its answer together."""
        return sequence_limit(self.context_length, 1)


def resolve(settings: Settings) -> ResolvedDemo:
    """Looks everything up.

    Raises:
        SetupError: the script, the interpreter or the model is missing; the sentence says which.
    """
    script(settings)
    python = interpreter(settings)
    variable, model = model_variable(settings)
    return ResolvedDemo(
        home=settings.demo_home,
        python=python,
        model_variable=variable,
        model=model,
        context_length=context_length(model),
        is_cpu_demo=settings.is_cpu_demo,
        takes_lists=takes_lists(settings),
        takes_seed=takes_seed(settings),
        model_files=_files(Path(model)),
        inherited=settings.inherited,
    )


def script(settings: Settings) -> Path:
    """The demo script.

    Raises:
        SetupError: the demo home has none.
    """
    path = settings.demo_home / SCRIPT
    if not path.is_file():
        raise SetupError(
            f"There is no {SCRIPT} in the demo home {settings.demo_home}.",
            next_step="Point --demo-home (DEMO_API_DEMO_HOME) at the root of a tt-metal checkout, or leave it out.",
        )
    return path


def interpreter(settings: Settings) -> Path:
    """The child's Python: the demo home's own, else DEMO_API_PYTHON, else ours.

    Raises:
        SetupError: it is not there or cannot be executed.
    """
    own = settings.demo_home / "python_env" / "bin" / "python"
    path = own if os.path.lexists(own) else settings.python or Path(sys.executable)
    if not (os.access(path, os.X_OK) and path.is_file()):  # in this order: is_file() raises where nobody may look
        raise SetupError(
            f"The child's interpreter {path} cannot be executed.",
            next_step="Set DEMO_API_PYTHON to the Python that tt-metal was installed into.",
        )
    return path


def model_variable(settings: Settings) -> tuple[str, str]:
    """The one environment variable, and its value, by which this demo home is told its model.

    Raises:
        SetupError: no model is set, it is not there, or it is of the form that this demo home does not read.
    """
    if settings.is_cpu_demo:
        return _cpu_model(settings)
    if settings.llama_dir is not None and reads_llama_dir(settings):
        if not settings.llama_dir.exists():
            raise SetupError(f"LLAMA_DIR is {settings.llama_dir}, which does not exist.", next_step=_SET_MODEL)
        return "LLAMA_DIR", str(settings.llama_dir)
    if settings.hf_model is not None:
        return "HF_MODEL", _expanded(settings.hf_model)
    if settings.llama_dir is not None:
        return "HF_MODEL", str(_hugging_face_folder(settings.llama_dir))
    either = "LLAMA_DIR (--llama-dir) or " if reads_llama_dir(settings) else ""
    raise SetupError("No model is set for this demo home.", next_step=f"Set {either}HF_MODEL (--hf-model).")


def model_name(model: str) -> str:
    """A model's name on both engines: the last part of its path or of its Hugging Face name."""
    path = Path(model)
    return path.stem if path.suffix == ".gguf" else path.name


def model_place(variable: str, model: str) -> ModelPlace:
    """What ``model_variable`` returns, as ``/health`` shows it."""
    return {"llama_dir": model} if variable == "LLAMA_DIR" else {"hf_model": model}


def gguf_file(settings: Settings) -> Path:
    """The one GGUF file of the CPU edition's model.

    Raises:
        SetupError: no model is set, or it is not there.
    """
    path = Path(_cpu_model(settings)[1])
    return path if path.is_file() else next(path.glob("*.gguf"))


def context_length(model: str) -> int | None:
    """The longest sequence, in tokens, that a model was made for; None where its files do not say.

    Args:
        model: a folder with a GGUF file or a Hugging Face ``config.json``, or a GGUF file, or a name.
    """
    path = Path(model)
    ggufs = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    try:
        if ggufs:
            return next((int(value) for key, value in read_metadata(ggufs[0]) if key.endswith(".context_length")), None)
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        length = config.get("max_position_embeddings", config.get("text_config", {}).get("max_position_embeddings"))
        return length if isinstance(length, int) else None
    except (OSError, ValueError, AttributeError):
        return None


def takes_lists(settings: Settings) -> bool:
    """Whether this demo home's script takes lists as sampling parameters, with a value for each user of a batch."""
    return bool(_ASKS_FOR_A_LIST.search(_read(settings.demo_home / SCRIPT) or ""))


def takes_seed(settings: Settings) -> bool:
    """Whether a seed is of use: to the CPU edition, and to a script that reads it."""
    return settings.is_cpu_demo or bool(_READS_A_SEED.search(_read(settings.demo_home / SCRIPT) or ""))


def reads_llama_dir(settings: Settings) -> bool:
    """Whether this demo home asks for LLAMA_DIR, as those of before 25 November 2025 do."""
    text = _read(settings.demo_home / MODEL_CONFIG)
    # Without the file it is not a known layout: both generations' users may have set LLAMA_DIR.
    return text is None or bool(_ASKS_FOR_LLAMA_DIR.search(text))


def _files(model: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a model's files; none where it is a name."""
    paths = [model] if model.is_file() else sorted(path for path in model.glob("*") if path.is_file())
    try:
        return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except OSError:  # somebody is at it
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _expanded(name: str) -> str:
    # A Hugging Face name stays as it is; a folder must not depend on the child's working directory.
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise SetupError(f"HF_MODEL is {name}, and there is no such user.", next_step=_SET_MODEL) from None
    return os.path.abspath(path) if name.startswith("~") or path.is_dir() else name


def _cpu_model(settings: Settings) -> tuple[str, str]:
    variable = "HF_MODEL" if settings.llama_dir is None and settings.hf_model is not None else "LLAMA_DIR"
    path = settings.llama_dir or (Path(_expanded(settings.hf_model)) if settings.hf_model else _small_model(settings))
    if not path.exists():
        raise SetupError(f"{variable} is {path}, which does not exist.", next_step=_SET_GGUF)
    files = 1 if path.is_file() else len(list(path.glob("*.gguf")))
    if files != 1:
        raise SetupError(
            f"{variable} is {path}, which has {files or 'no'} .gguf files, and the CPU edition needs exactly one.",
            next_step=_SET_GGUF,
        )
    return variable, str(path)


def _small_model(settings: Settings) -> Path:
    found = weights.find(settings.model_dir)
    if found is None:
        raise SetupError(
            f"The small model is not in {settings.model_dir} yet.",
            next_step="Run `demo-api model pull` once, or set LLAMA_DIR to a folder with a GGUF file.",
        )
    return found


def _hugging_face_folder(path: Path) -> Path:
    # Meta's download puts its own format into the folder `original` of a Hugging Face checkout.
    for folder in (path, path.parent) if path.name == "original" else (path,):
        if (folder / "config.json").is_file():
            return folder
    raise SetupError(
        f"This demo home reads HF_MODEL only, and LLAMA_DIR={path} is no Hugging Face folder (it has no config.json).",
        next_step="Set HF_MODEL to a Hugging Face name such as meta-llama/Llama-3.1-8B-Instruct, or to its folder.",
    )
