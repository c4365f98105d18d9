"""The 2025 demo's arithmetic: after the answer it divides by (iterations - 1).

The loop and its names are the demo's, because whoever wants one token marks the users as done in ``user_done``.
"""

import demo_lines
from loguru import logger


@demo_lines.cases
def test_demo_text(request, batch_size):
    input_prompts = demo_lines.prompts(request, batch_size)
    tokens = [demo_lines.split(f"ok: {prompt}") for prompt in input_prompts]
    all_outputs = [words[:1] for words in tokens]
    user_done = [False] * len(input_prompts)
    for level, message in demo_lines.opening(input_prompts):
        logger.log(level, message)
    iteration, users_decoding = 0, True
    while users_decoding:
        logger.info(f"Iteration {iteration}: 16ms @ 64.3 tok/s/user (64.3 tok/s throughput)")
        for user, words in enumerate(tokens):
            if iteration + 1 < len(words) and not user_done[user]:
                all_outputs[user].append(words[iteration + 1])
            else:
                user_done[user] = True
                logger.trace(f"[User {user}] Finished decoding at iteration {iteration}")
        iteration += 1
        users_decoding = not all(user_done) and iteration < (request.config.getoption("--max_generated_tokens") or 200)
    logger.info("Finished decoding, printing the final outputs...\n")
    for level, message in demo_lines.answers(input_prompts, all_outputs):
        logger.log(level, message)
    assert 16 / (iteration - 1) > 0
    for level, message in demo_lines.metrics(len(input_prompts)):
        logger.log(level, message)
