"""What the stand-in checkouts have in common: a tiny language model, its cache, and what a test may ask of it.

Its tokens are bytes, so a character can be several tokens. It answers a prompt by its characters in reverse order,
unless the prompt begins with one of three words: ``say`` (it says the rest), ``silent`` (nothing), ``endless`` (no
end). Raw text it goes on with " and so on". A token that it has not said, or that is in a wrong place of the cache,
makes it say "?" for ever: as a real model it does not complain, but it shows.
"""

import os
import time
from pathlib import Path

import torch

BEGIN, USER, END_TURN, ASSISTANT, END_TEXT = range(256, 261)
NAMES = {BEGIN: "<|begin|>", USER: "<|user|>", END_TURN: "<|eot|>", ASSISTANT: "<|assistant|>", END_TEXT: "<|end|>"}
VOCABULARY = 261

calls = []
"""Each step that was done: its name, and what it was given."""

faults = {}
"""What the next step of a name raises."""

supports_sampling = True
"""Whether the device of a checkout of 2026 can sample."""

base_model_name = "Tiny-1B"
context_length = 131072


def step(name, **given):
    if name in faults:
        raise faults.pop(name)
    calls.append((name, given))
    if "TINY_MODEL_FOLDER" in os.environ:
        _pass_gate(Path(os.environ["TINY_MODEL_FOLDER"]), name)


def _pass_gate(folder, name):
    """Tells a test in another process that this step was reached, and waits while its gate is there."""
    with (folder / "steps").open("a") as steps:
        steps.write(f"{name}\n")
    deadline = time.monotonic() + 60
    while (folder / f"{name}.gate").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class ModelArgs:
    """What both generations' ModelArgs offer to the demo."""

    device_name = "N150"
    n_layers = 2
    max_prefill_chunk_size = 128 * 1024

    def __init__(self, mesh_device, model_name, tokenizer, *, instruct, max_batch_size, optimizations, max_seq_len):
        mesh_device.check()
        self.mesh_device, self.model_name, self.tokenizer = mesh_device, model_name, tokenizer
        self.base_model_name, self.max_context_len = base_model_name, context_length
        self.instruct, self.max_batch_size, self.max_seq_len = instruct, max_batch_size, max_seq_len
        self.optimizations = optimizations(self)

    def encode_prompt(self, prompt_text, system_prompt_text=None, instruct=True):
        step("encode_prompt", instruct=instruct)
        text = list(prompt_text.encode())
        return [BEGIN, USER, *text, END_TURN, ASSISTANT] if instruct else [BEGIN, *text]


class Model:
    """The model on its device. The cache is never cleared, and what a longer text has left in it stays."""

    def __init__(self, args, end_of_text):
        self.args = args
        self._end_of_text = end_of_text
        self._cache = {}
        self._prompt = []

    def prefill(self, tokens, padded_length):
        self.args.mesh_device.check()
        step("prefill", tokens=tokens)
        assert padded_length <= self.args.max_seq_len, "Sequence length exceeds max seq len"
        self._prompt = tokens
        self._cache.update(enumerate([*tokens, *[0] * (padded_length - len(tokens))]))
        return self._logits(self._next(len(tokens) - 1))

    def decode(self, token, position):
        self.args.mesh_device.check()
        assert position < self.args.max_seq_len, "the cache has no such position"
        self._cache[position] = token
        return self._next(position)

    def decode_logits(self, token, position):
        return self._logits(self.decode(token, position))

    def _next(self, position):
        answer, end = self._answer()
        said = [self._cache.get(place) for place in range(len(self._prompt), position + 1)]
        if len(said) > len(answer) or any(one not in (it, _second(it)) for one, it in zip(said, answer)):  # noqa: B905
            return ord("?")
        return answer[len(said)] if len(said) < len(answer) else end

    def _answer(self):
        if self._prompt[1] != USER:
            return list(b" and so on"), self._end_of_text
        text = bytes(self._prompt[2:-2]).decode()
        word, _, rest = text.partition(" ")
        texts = {"say": rest, "silent": "", "endless": "ab" * 5000}
        return list(texts.get(word, text[::-1]).encode()), END_TURN

    @staticmethod
    def _logits(best):
        row = [0.0] * VOCABULARY
        row[_second(best)], row[best] = 1.0, 2.0
        return torch.tensor([[row]])


def _second(token):
    """The second best token is the same letter in the other case."""
    return ord(chr(token).swapcase()) if token < 128 else token


def sample_host(tt_input, temperature=0.6, top_p=0.08, on_host=True):
    """Takes the most likely token at temperature 0, else the second: so sampled tokens can be told from greedy ones."""
    step("sample_host", temperature=temperature, top_p=top_p)
    batch, one, vocabulary = tt_input.shape  # it has to be logits
    assert (one, vocabulary) == (1, VOCABULARY)
    assert 0 <= top_p <= 1
    row = tt_input[0][0].tolist()
    best = sorted(range(vocabulary), key=row.__getitem__)[::-1]
    return None, torch.tensor([[best[0 if temperature == 0 or row[best[1]] == 0 else 1]]] * batch)


def padded_rows(encoded):
    """What preprocess_inputs_prefill returns."""
    longest = max(map(len, encoded))
    tokens = [torch.tensor([[*one, *[0] * (longest - len(one))]]) for one in encoded]
    return tokens, encoded, [len(one) for one in encoded], [longest] * len(encoded)


def text_of(tokens):
    """Joins bytes to text as tokenizers do, special tokens by their names."""
    return b"".join(bytes([one]) if one < 256 else NAMES[one].encode() for one in tokens).decode(errors="replace")


def checked_rows(args, tokens, start_pos):
    """What prepare_decode_inputs_host asserts."""
    rows = tokens.shape[0]
    assert start_pos.shape[0] == rows, "Batch size mismatch"
    assert rows == args.max_batch_size, f"Batch size {rows} must be equal to max_batch_size {args.max_batch_size}"
    return rows


def prefill_all(models, model_args, tokens, page_table, kv_cache, prompt_lens):
    """The part of prefill_forward_text that both generations have."""
    batch, _ = tokens.shape
    assert page_table is None, "page_table mush be torch.Tensor"
    assert batch == 1, "the stand-in has one user"
    assert kv_cache is None or kv_cache[0] is None, "without paged attention there is no cache to give"
    length = int(prompt_lens[0])
    padded = 128 if length <= 128 else 1024 if length <= 1024 else 2 ** (length - 1).bit_length()
    assert padded <= model_args[0].max_prefill_chunk_size, "page_table must be provided for chunked prefill"
    return models[0].prefill(tokens[0].tolist()[:length], padded)
