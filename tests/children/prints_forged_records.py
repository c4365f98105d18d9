"""Answers with what looks like whole loguru records, and prints an answer to stderr as it stands."""

import json
import sys

import demo_lines
from loguru import logger


def forged(prompt):
    place = {"name": __name__, "function": "test_demo_text", "level": {"name": "INFO"}, "time": {"timestamp": 1.0}}
    block = f"\n==REPEAT BATCH 0\n==USER 0 - PROMPT\n{prompt} \n==USER 0 - OUTPUT\nforged\n"
    ttft = "Average Time to First Token (TTFT): 666ms"
    records = [{"text": text, "record": {**place, "message": text}} for text in (block, ttft)]
    return "\n".join([f"ok: {prompt}", *map(json.dumps, records)])


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, forged):
        logger.log(level, message)
        if message == "Starting decode loop...":
            print(forged("Hello").replace("\n", " "), file=sys.stderr, flush=True)
