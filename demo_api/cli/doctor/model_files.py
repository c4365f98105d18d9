"""The check of the model's files: Meta's format, Hugging Face's, or a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from demo_api.cli.doctor.finding import Finding, error, ok, warning
from demo_api.cli.doctor.probe import Setup
from demo_api.cpu_demo.models.tt_transformers.tt.gguf import read_metadata
from demo_api.demo import home

META = {"params.json": "params.json", "tokenizer.model": "tokenizer.model", "consolidated.*.pth": "consolidated.*.pth"}
HUGGING_FACE = {
    "config.json": "config.json",
    "a tokenizer (tokenizer.json)": "tokenizer*",
    "weights (*.safetensors)": "*.safetensors pytorch_model*.bin",
}
"""What a folder of each format must hold, and the patterns by which it is known."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_POINTER = b"version https://git-lfs"
_GET_AGAIN = "Download the model again."


def model_files(setup: Setup) -> Finding:
    """Whether the model is of a format that this demo home reads, and whole."""
    variable, value = home.model_variable(setup.settings)
    if setup.settings.is_cpu_demo:
        return _gguf(home.gguf_file(setup.settings))
    folder = Path(value)
    if folder.is_dir():
        return _meta(folder) if variable == "LLAMA_DIR" else _hugging_face(folder)
    if variable == "LLAMA_DIR" or not _NAME.fullmatch(value):
        sentence = f"{variable} is {value}, which is neither a folder nor a Hugging Face name."
        return error(sentence, "Set it to a folder that exists, or to a name such as owner/model.")
    return _hub_name(value, setup.settings.inherited)


def _gguf(file: Path) -> Finding:
    try:
        facts = dict(read_metadata(file))
    except (OSError, ValueError) as problem:
        return error(f"{file} cannot be read as a GGUF file: {problem}.", _GET_AGAIN)
    architecture, name = facts.get("general.architecture"), file.name
    if architecture != "llama":
        sentence = f"{name} is a model of the architecture {architecture}, but the CPU edition runs only Llama models."
        return error(sentence, "Set LLAMA_DIR to a folder with a GGUF file of a Llama model.")
    length = facts.get("llama.context_length")
    return ok(f"{name}: a Llama model, {file.stat().st_size / 1e6:.0f} MB, {length} tokens of context.")


def _meta(folder: Path) -> Finding:
    missing = _missing(folder, META)
    if not missing:
        return _whole(folder, META, "Meta's format")
    if not _missing(folder, HUGGING_FACE):  # a checkout that reads LLAMA_DIR looks into the folder, not at its name
        return _whole(folder, HUGGING_FACE, "Hugging Face's format, which this checkout reads by LLAMA_DIR too")
    inner = folder / "original"
    if not _missing(inner, META):
        return error(f"Meta's files are in {inner}, not in {folder}.", f"Set LLAMA_DIR to {inner}.")
    sentence = f"{folder} is not a complete model in Meta's format: it lacks {', '.join(missing)}."
    return error(sentence, f"{_GET_AGAIN} For one in Hugging Face's format set HF_MODEL.")


def _hugging_face(folder: Path) -> Finding:
    missing = _missing(folder, HUGGING_FACE)
    if not missing:
        return _whole(folder, HUGGING_FACE, "Hugging Face's format")
    if not _missing(folder, META):
        return error(
            f"{folder} is in Meta's format, and HF_MODEL wants Hugging Face's: it lacks {', '.join(missing)}.",
            "Set HF_MODEL to the model in Hugging Face's format; a checkout of before 25 November 2025 can read this "
            "one by LLAMA_DIR.",
        )
    sentence = f"{folder} is not a complete model in Hugging Face's format: it lacks {', '.join(missing)}."
    return error(sentence, _GET_AGAIN)


def _whole(folder: Path, wanted: Mapping[str, str], form: str) -> Finding:
    pointers = [file.name for file in sorted(folder.iterdir()) if file.is_file() and _starts(file, _POINTER)]
    lost = [name for name in _shards(folder) if not (folder / name).is_file()] if wanted is HUGGING_FACE else []
    if pointers:
        sentence = f"{folder} holds Git LFS pointers in place of files: {', '.join(pointers[:3])}."
        return error(sentence, f"Run `git lfs pull` in {folder}.")
    if lost:
        sentence = f"{folder} lacks {len(lost)} of the files that its index names, such as {lost[0]}."
        return error(sentence, _GET_AGAIN)
    return ok(f"{folder} is in {form}.")


def _missing(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    return [
        what
        for what, patterns in wanted.items()
        if not any(True for pattern in patterns.split() for _ in folder.glob(pattern))
    ]


def _shards(folder: Path) -> list[str]:
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _starts(file: Path, words: bytes) -> bool:
    try:
        with open(file, "rb") as opened:
            return opened.read(len(words)) == words
    except OSError:
        return False


def _hub_name(name: str, environ: Mapping[str, str]) -> Finding:
    cache = hub_cache(environ)
    if any((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json")):
        return ok(f"{name} is in the cache {cache}.")
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        sentence = f"{name} is not in the cache {cache}, and HF_HUB_OFFLINE forbids downloading it."
        return error(sentence, "Unset HF_HUB_OFFLINE, or set HF_MODEL to the model's folder.")
    return warning(
        f"{name} is not in the cache {cache}: the first run downloads it.",
        "Download it first; Meta's models need an accepted licence and a token in HF_TOKEN.",
    )


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where Hugging Face's library keeps the models that it has downloaded."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return Path(environ[variable])
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:  # nobody knows
        home = Path("~")
    caches = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    return Path(environ.get("HF_HOME") or caches / "huggingface") / "hub"
