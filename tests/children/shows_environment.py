"""Answers with what it sees around itself, as JSON."""

import json
import os
import signal
import sys
from pathlib import Path

import demo_lines
from loguru import logger

PREFIXES = ("CI", "DEMO_API", "FORCE_COLOR", "HF_MODEL", "LLAMA_DIR", "LOGURU", "MESH_DEVICE", "PY", "TT_")


def facts(request):
    config, sampling_params = request.config, request.config.getoption("--sampling_params")
    prompt_file = Path(config.getoption("--input_prompts"))
    umask = os.umask(0)
    os.umask(umask)
    return {
        "environ": {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)},
        "cwd": str(Path.cwd()),
        "argv": sys.argv,
        "prompt_file": prompt_file.read_text(),
        "prompt_file_mode": oct(prompt_file.stat().st_mode & 0o777),
        "umask": oct(umask),
        "sigint": repr(signal.getsignal(signal.SIGINT)),
        "session_leader": os.getsid(0) == os.getpid(),
        "stdin": os.read(0, 1).decode(),
        "open_fds": [fd for fd in range(256) if is_open(fd)],
        "options": {
            name: config.getoption(f"--{name}")
            for name in ("max_seq_len", "max_generated_tokens", "batch_size", "instruct")
        },
        "sampling_params": sampling_params,
        "samplers": request.module.samplers(sampling_params, config.getoption("--batch_size")),
    }


def is_open(fd):
    try:
        return os.fstat(fd) is not None
    except OSError:
        return False


@demo_lines.cases
def test_demo_text(request, batch_size):
    answer = [json.dumps(facts(request))]  # one token, so that no limit cuts it
    for level, message in demo_lines.run(request, batch_size, lambda prompt: answer):
        logger.log(level, message)
