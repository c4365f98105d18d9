"""Which model is run: LLAMA_DIR or HF_MODEL names a folder that holds one GGUF file, or such a file."""

import os
from pathlib import Path

from loguru import logger
from models.tt_transformers.tt.gguf import NotGguf, read_metadata

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class ModelArgs:
    """The facts about the model that the demo needs before it loads it.

    Attributes:
        path: the GGUF file.
        model_name: its name: the file's name without ".gguf".
        device_name: always CPU.
        max_context_len: how many tokens the model was trained to look back on.
    """

    device_name = "CPU"

    def __init__(self, max_batch_size, max_seq_len):
        logger.info(f"Inferring device name: {self.device_name}")
        self.path = find_gguf(checkpoint())
        self.model_name = self.path.stem
        self.max_batch_size = max_batch_size
        self.max_seq_len = max_seq_len
        self.max_context_len = context_length(self.path)
        logger.info(f"Checkpoint directory: {self.path.parent}")
        logger.info(f"Tokenizer file: {self.path}")
        logger.info(f"Model name: {self.model_name}")
        if max_batch_size not in BATCH_SIZES:
            raise ValueError(f"Batch size {max_batch_size} not supported")


def checkpoint():
    """The path in LLAMA_DIR or HF_MODEL: exactly one of them has to be set."""
    llama_dir, hf_model = os.environ.get("LLAMA_DIR"), os.environ.get("HF_MODEL")
    assert not (llama_dir and hf_model), "Only one of LLAMA_DIR or HF_MODEL should be set"
    assert llama_dir or hf_model, "Please set HF_MODEL or LLAMA_DIR to a directory that holds one GGUF file"
    path = Path(llama_dir or hf_model).expanduser()
    assert path.exists(), (
        f"Checkpoint directory {path} does not exist, please set LLAMA_DIR or HF_MODEL to a directory that holds one "
        "GGUF file"
    )
    return path


def find_gguf(path):
    """The one GGUF file that ``path`` is or holds."""
    if path.is_file():
        return path
    files = sorted(file for file in path.glob("*.gguf") if file.is_file())
    assert files, f"There is no GGUF file in {path}: put one there, or name another directory"
    assert len(files) == 1, (
        f"There are {len(files)} GGUF files in {path}: set LLAMA_DIR or HF_MODEL to one of them, such as {files[0]}"
    )
    return files[0]


def context_length(path):
    """Checks that ``path`` is a model of the Llama architecture and says how long a context it was trained for."""
    architecture = None
    try:
        for key, value in read_metadata(path):
            if key == "general.architecture":
                architecture = value
            if key == "llama.context_length":
                return value  # what follows is mostly the vocabulary: long, and not needed here
    except (NotGguf, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AssertionError(f"{path} cannot be read as a GGUF file ({reason}): get it again") from None
    raise AssertionError(
        f"{path} is a model of the architecture {architecture}: the demo runs Llama models, name one of those"
    )
