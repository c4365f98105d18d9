"""Finds that prompt and answer do not fit together, whatever they are."""

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    tokens, room = 99_999, request.config.getoption("--max_seq_len") or 1024
    limit = request.config.getoption("--max_generated_tokens") or 200
    for level, message in demo_lines.opening(demo_lines.prompts(request, batch_size)):
        logger.log(level, message)
        if message == "Processing batch 0":
            assert limit + tokens <= room, (
                f"Prompt prefill tokens ({tokens}) + maximum number of decoded iterations ({limit}) "
                f"needs to be <= than max_seq_len ({room})"
            )
