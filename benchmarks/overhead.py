"""Wall time of POST /chat against the same pytest command in a shell, alternating; and the server's own memory.

    python benchmarks/overhead.py [PAIRS]

Both answer the same prompt with at most 32 tokens at temperature 0 on the CPU edition of the demo, each with a child of
its own that starts and loads the model anew. Neither loads the pytest plugins of this environment, which are there for
the tests: a user has none of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests
from figures import report

from demo_api.config import Settings
from demo_api.demo import home

PROMPT = "Name three primary colors."
MAX_TOKENS = 32
RAW = "the raw pytest command"


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    settings = Settings.load()
    with tempfile.TemporaryDirectory() as folder:
        server, url = start_server(Path(folder), "--warm", "off")
        try:
            compare(server, url, settings, Path(folder), pairs)
        finally:
            server.terminate()
            server.wait(60)


def start_server(folder: Path, *flags: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "demo_api", "serve", "--port", "0", "--state-dir", str(folder / "state"), *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        found = re.search(r"http://\S+(?=/chat)", line)
        if found:
            return server, found[0]
    raise SystemExit("the server did not start")


def compare(server: subprocess.Popen[str], url: str, settings: Settings, folder: Path, pairs: int) -> None:
    shell_command, environ = raw_command(settings, folder)
    in_shell(shell_command, environ, settings), over_http(url)  # the first of each fills the page cache
    found: dict[str, list[float]] = {"ours": [], "raw": []}
    for number in range(pairs):
        if number % 2:  # neither always comes first
            raw, ours = in_shell(shell_command, environ, settings), over_http(url)
        else:
            ours, raw = over_http(url), in_shell(shell_command, environ, settings)
        found["ours"].append(ours)
        found["raw"].append(raw)
        print(f"pair {number + 1:2}: shell {raw:.3f} s, POST /chat {ours:.3f} s, ratio {ours / raw:.3f}", flush=True)
    memory = psutil.Process(server.pid).memory_info().rss / 2**20
    what = f"POST /chat, {MAX_TOKENS} tokens, each with a new child"
    report(what, found["ours"], "s", beside=RAW, theirs=found["raw"], ratio_goal=1.10)
    report(f"memory of the server's process after {pairs + 1} such runs", [memory], "MiB")


def raw_command(settings: Settings, folder: Path, prompt: str = PROMPT) -> tuple[str, dict[str, str]]:
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps([{"prompt": prompt}]))
    variable, model = home.model_variable(settings)
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "TT_GH_CI_INFRA", "LLAMA_DIR", "HF_MODEL")
    }
    environ |= {variable: model, "PYTHONPATH": str(settings.demo_home), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = (
        f"{sys.executable} -m pytest {home.SCRIPT} -k performance-batch-1 --input_prompts {prompts} "
        f"--max_seq_len 1024 --max_generated_tokens {MAX_TOKENS - 1} --batch_size 1 --instruct 1 -s"
    )
    return command, environ


def in_shell(command: str, environ: dict[str, str], settings: Settings) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, shell=True, cwd=settings.demo_home, env=environ, capture_output=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return seconds


def over_http(url: str) -> float:
    begin = time.perf_counter()
    answer = requests.post(
        f"{url}/chat", json={"prompt": PROMPT, "max_tokens": MAX_TOKENS, "temperature": 0}, timeout=900
    )
    seconds = time.perf_counter() - begin
    answer.raise_for_status()
    assert answer.json()["timing"]["warm"] == "off", "its child was started ahead"
    return seconds


if __name__ == "__main__":
    main()
