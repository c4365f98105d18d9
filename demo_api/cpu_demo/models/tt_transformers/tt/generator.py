"""Answers batches of prompts with a loaded model.

A batch is run in two steps, as on the device. ``prefill`` reads all prompts and returns every user's first token;
``decode`` then returns every user's next token. All users take each step of the decode together, so the time from one
step to the next is the time of one iteration, whatever the lengths of the prompts.
"""

from time import perf_counter

# Enough to touch every weight once; a long prompt must not be read twice.
WARMUP_TOKENS = 8


class Generator:
    """Answers a batch of prompts with a loaded model, again and again.

    Args:
        model: a list of one Model.
        model_args: a list of its ModelArgs.
        device: unused here, where the model knows where it is.
    """

    def __init__(self, model, model_args, device):
        (self._model,) = model
        self.tokenizer = self._model.tokenizer
        self._is_warm = False

    def warm_up(self, tokens):
        """Reads the beginning of the first prompt, so that the model's file is in memory; returns the seconds it took.

        As on the device, where programs are compiled once, that is nothing from the second batch on.
        """
        started = perf_counter()
        if not self._is_warm:
            self._model.start([tokens[:WARMUP_TOKENS]], max_tokens=1, cache_prompt=False).wait()
            self._is_warm = True
        return perf_counter() - started

    def prefill(self, prompts, sampling, max_generated_tokens, stop_at_eos):
        """Reads all prompts and returns each one's first Token. ``decode`` has ``max_generated_tokens`` more."""
        several = len(prompts) > 1
        if several:  # who is read first would decode before the others are read
            self._model.start(prompts, max_tokens=1, cache_prompt=False).wait()
        # Of several, all are read by now: this time nothing but their last tokens is, by all users at once.
        max_tokens = 1 + max(1, max_generated_tokens)
        self._generation = self._model.start(
            prompts, max_tokens=max_tokens, cache_prompt=several, ignore_eos=not stop_at_eos, **sampling
        )
        return self.decode()

    def decode(self):
        """Waits for the next Token of every user, and returns them. Who has stopped gets the last one again."""
        return self._generation.next_tokens()

    def stop(self):
        """Stops what is still being generated: the engine decodes ahead of those who ask for tokens."""
        self._model.stop()
