"""The text demo, CPU edition: the same command line, messages and answers' format as the demo on a device."""

import json

import pytest
from loguru import logger
from models.tt_transformers.demo.metrics import Metrics
from models.tt_transformers.demo.settings import BATCH_1, BATCH_32
from models.tt_transformers.tt.common import preprocess_inputs_prefill
from models.tt_transformers.tt.generator import Generator
from models.tt_transformers.tt.model import create_tt_model
from models.tt_transformers.tt.model_config import checkpoint, context_length, find_gguf
from models.tt_transformers.tt.sampling import check_sampling


def load_inputs(user_input, batch):
    """One prompt for each user: from a file, or from a list as a file holds it, or the one prompt itself."""
    if len(user_input) == 1:
        assert isinstance(user_input[0], str), "A list of one is the prompt itself: it has to be text"
        return list(user_input * batch)
    if isinstance(user_input, str):
        with open(user_input, encoding="utf-8") as file:
            user_input = json.load(file)
    assert isinstance(user_input, list), 'The prompts have to be a list: [{"prompt": "..."}, ...]'
    assert user_input, "There are no prompts: write at least one into the list"
    if len(user_input) < batch:
        logger.warning(
            f"Number of users in the file is less than the provided batch={batch}. "
            "Repeating the prompts to match the batch size."
        )
        user_input = user_input * batch
    for entry in user_input[:batch]:
        assert "context" not in entry, "The CPU edition downloads no context: write it into the prompt"
    return [entry["prompt"] for entry in user_input[:batch]]


def check_context(settings):
    """Skips what the model was not made for, before it is loaded: that takes longest."""
    path = find_gguf(checkpoint())
    if context_length(path) < settings.max_seq_len:
        pytest.skip(
            f"Max seq len {settings.max_seq_len} not supported by model {path.stem}. "
            f"The model's max context len is {context_length(path)}"
        )


def load_model(settings, device):
    check_context(settings)
    model_args, model, _, _ = create_tt_model(
        device, max_batch_size=settings.batch_size, max_seq_len=settings.max_seq_len
    )
    return model_args, Generator([model], [model_args], device)


def check_fit(settings, encoded_prompts):
    longest = max(len(tokens) for tokens in encoded_prompts)
    assert settings.max_generated_tokens + longest <= settings.max_seq_len, (
        f"Prompt prefill tokens ({longest}) + maximum number of decoded iterations "
        f"({settings.max_generated_tokens}) needs to be <= than max_seq_len ({settings.max_seq_len})"
    )


def log_tails(all_outputs):
    """The last characters of each prompt with its answer so far, on one line."""
    for user, output in enumerate(all_outputs):
        # As a tokenizer shows a character of which only some tokens are there.
        text = "".join(output) + ("" if output[-1] else "\ufffd")
        if len(text) > 100:
            text = "..." + text[-97:]
        logger.opt(depth=1).info("[User {}] {}", user, text.replace("\n", " "))


def log_answers(batch_idx, prompts, all_outputs):
    logger.opt(depth=1).info("Finished decoding, printing the final outputs...\n")
    for user, (prompt, output) in enumerate(zip(prompts, all_outputs, strict=True)):
        answer = "".join(output[1:]).strip()
        if len(prompt) > 200:
            prompt = prompt[:100] + "\n<long prompt not printed in full>\n" + prompt[-100:]
        record = f"\n==REPEAT BATCH {batch_idx}\n==USER {user} - PROMPT\n{prompt} \n==USER {user} - OUTPUT\n{answer}\n"
        logger.opt(depth=1).info(record)


@pytest.mark.parametrize("defaults", [BATCH_1, BATCH_32], ids=["batch-1", "batch-32"])
# The weights are as precise as the model's file has them, so on a CPU both do the same.
@pytest.mark.parametrize("optimizations", ["performance", "accuracy"], ids=["performance", "accuracy"])
def test_demo_text(defaults, optimizations, mesh_device, is_ci_env, request):
    """Answers a batch of prompts.

    A plugin may end the decode from inside: when "Starting decode loop..." is logged, this frame's ``user_done`` is
    the list of who has finished, and its ``all_outputs`` has each user's prompt as the model reads it and first token.
    """
    settings = defaults.overridden(request.config.option)
    if is_ci_env:
        pytest.skip("CI only runs the CI-only tests")
    if settings.data_parallel != 1:
        pytest.skip(f"Invalid number of DP groups: {settings.data_parallel}, for 1 devices")
    sampling = check_sampling(settings.sampling_params)
    if not settings.stop_at_eos:
        limit = settings.max_generated_tokens
        logger.info(f"The decode generation will only stop at the max_generated_tokens limit == {limit}")

    logger.info("Start profiler")
    logger.info("Reading inputs...")
    input_prompts = load_inputs(settings.input_prompts, settings.batch_size)
    model_args, generator = load_model(settings, mesh_device)

    all_metrics = []
    logger.info("Starting inference...")
    for batch_idx in range(settings.repeat_batches):
        logger.info(f"Processing batch {batch_idx}")
        first = batch_idx % settings.batch_size
        prompts = input_prompts[first:] + input_prompts[:first]
        texts, encoded_prompts = preprocess_inputs_prefill(prompts, generator.tokenizer, settings.instruct)
        check_fit(settings, encoded_prompts)

        metrics = Metrics(users=settings.batch_size)
        all_metrics.append(metrics)
        logger.info("Starting prefill warmup...")
        metrics.warmup = generator.warm_up(encoded_prompts[0])
        logger.info("Finished prefill warmup")

        logger.info("Starting prefill...")
        metrics.start()
        tokens = generator.prefill(encoded_prompts, sampling, settings.max_generated_tokens, settings.stop_at_eos)
        metrics.prefilled(tokens)
        logger.info("Prefill finished")

        all_outputs = [[text, token.text] for text, token in zip(texts, tokens, strict=True)]
        user_done = [False] * settings.batch_size
        iteration = 0
        users_decoding = True

        logger.info("Starting decode loop...")
        while users_decoding:
            tokens = generator.decode()
            metrics.decoded(tokens)
            logger.info(metrics.iteration_line(iteration))

            for user, token in enumerate(tokens):
                if not token.stop and not user_done[user]:
                    all_outputs[user].append(token.text)
                elif settings.stop_at_eos:
                    user_done[user] = True
                    logger.trace(f"[User {user}] Finished decoding at iteration {iteration}")
            log_tails(all_outputs)

            iteration += 1
            users_decoding = iteration < settings.max_generated_tokens and not all(user_done)
        generator.stop()
        log_answers(batch_idx, prompts, all_outputs)

    if not settings.stop_at_eos:
        logger.info("Please note that 'stop_at_eos' is disabled. Output repetition is expected.")
    for line in all_metrics[0].lines():
        logger.info(line)
    name, device = model_args.model_name, model_args.device_name
    logger.info(f"Model {name} does not have prefill targets set for device {device}")
