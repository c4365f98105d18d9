"""What is done to prompts before the model sees them."""

from loguru import logger


def preprocess_inputs_prefill(prompts, tokenizer, instruct):
    """The text that the model reads for each prompt, and the text's tokens."""
    encoded = [tokenizer.encode_prompt(prompt, instruct) for prompt in prompts]
    texts, tokens = [text for text, _ in encoded], [tokens for _, tokens in encoded]
    logger.info("Encoded prompt lengths:" + ", ".join(str(len(prompt)) for prompt in tokens))
    logger.info(f"# of users: {len(prompts)}")
    return texts, tokens
