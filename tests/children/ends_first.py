"""Ends its answer with the first token, which the demo takes for text: it prints that one and decodes on."""

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    for level, message in demo_lines.run(request, batch_size, lambda _prompt: ["<|eot_id|>", " again", " again"]):
        logger.log(level, message)
