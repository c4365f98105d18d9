"""What it costs that the direct engine's model is in a process of its own: microseconds a token.

    PYTHONPATH=tests python benchmarks/pipe.py [ROUNDS]

The same stand-in model, which takes next to no time for a token, answers in this process and in one of its own, in
turns. The difference is what the pipe takes, JSON and threads on both sides included.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import report
from support.checkouts import SITE, make_bare_environment, make_checkout

from demo_api.config import Settings
from demo_api.demo.command import TOP_K
from demo_api.direct import make_model
from demo_api.direct.host.demo_api_host import protocol
from demo_api.direct.host.demo_api_host.tt_metal import TtMetal
from demo_api.direct.hosted_model import question_message
from demo_api.messages import Question, Request

TOKENS = 100  # of an answer: the stand-in takes longer for each further one
ANSWERS = 20
MODEL = "meta-llama/Tiny-1B-Instruct"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        home = make_checkout(Path(folder) / "checkout", "2026")
        make_bare_environment(home / "python_env")
        sys.path[:0] = [str(home), str(SITE)]
        os.environ["HF_MODEL"] = MODEL
        here = TtMetal(demo_home=str(home), max_seq_len=None, top_k=TOP_K)
        here.load()
        apart = make_model(Settings.load({"demo_home": home, "hf_model": MODEL, "state_dir": Path(folder) / "state"}))
        apart.load(print)
        try:
            question = Question.of(Request.model_validate({"prompt": "endless", "max_tokens": TOKENS}))
            asked = protocol.Question(**question_message(question))
            compare(
                lambda: here.complete(asked, lambda *_: False),
                lambda: apart.complete(question, lambda *_: False),
                rounds,
            )
        finally:
            apart.close()
            here.close()


def compare(here: Callable[[], protocol.Completion], apart: Callable[[], protocol.Completion], rounds: int) -> None:
    costs = []
    for number in range(rounds):
        ours, theirs = microseconds(here), microseconds(apart)
        costs.append(theirs - ours)
        print(f"round {number + 1:2}: in this process {ours:6.1f} us a token, in its own {theirs:6.1f}", flush=True)
    report("the pipe to the direct engine's model, for each token", costs, "us")


def microseconds(answer: Callable[[], protocol.Completion]) -> float:
    begin = time.perf_counter()
    for _ in range(ANSWERS):
        assert answer().tokens_generated == TOKENS
    return (time.perf_counter() - begin) / (ANSWERS * TOKENS) * 1e6


if __name__ == "__main__":
    main()
