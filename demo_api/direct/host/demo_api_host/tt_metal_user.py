"""tt-metal's Generator for one user: which calls each generation of the checkout takes, and in which shapes.

Read from ``models/tt_transformers`` of tt-metal, July 2025 to late 2026: ``demo/simple_text_demo.py`` for the order of
the calls, ``tt/generator.py`` and ``tt/common.py`` for what they take and give.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from .context import context_for
from .tt_metal_checkout import Checkout

_NOT_ON_DEVICE = ("Mistral-7B",)
"""Base models that the 2026 demo samples on the host though their device could (tt-metal's issue 34763)."""

_GREEDY_TOP_P = 0.08
"""What the demo asks for along with temperature 0, which makes it meaningless."""


class OneUser:
    """A model on a device, and the Generator that runs it: batch 1, no paged attention, no trace.

    Args:
        device: the mesh device; it stays the caller's.
        max_seq_len: ``DEMO_API_MAX_SEQ_LEN``.
        top_k: what the device is given along with temperature 0.

    Attributes:
        name: the model's, as the demo calls it.
        device_name: such as ``N150``.
        context: tokens that a prompt and its answer have together at most.
        longest_prompt: tokens that are read at once; only with paged attention could more be read, in pieces.
        stop_tokens: those that end an answer.
    """

    def __init__(self, checkout: Checkout, device: Any, max_seq_len: int | None, top_k: int) -> None:
        self._torch, self._common = checkout.torch, checkout.common
        self._sampling_params = checkout.generator.SamplingParams
        args, model, cache, _ = checkout.common.create_tt_model(
            device,
            instruct=True,
            max_batch_size=1,
            optimizations=functools.partial(_performance, checkout.model_config.DecodersPrecision),
            max_seq_len=context_for(max_seq_len, None),
            paged_attention_config=None,
            dtype=checkout.ttnn.bfloat8_b,
        )
        self._args, self._cache = args, [cache]
        self._top_k = top_k
        # Fast tokenizers say "Already borrowed" to a second thread: prompts are counted while another one is answered.
        self._tokenizer_lock = threading.Lock()
        self._generator = checkout.generator.Generator([model], [args], device, tokenizer=args.tokenizer)
        # 2026's model says whether its device can sample; 2025's has no such attribute, and its device can take the
        # most likely token for one user.
        supported = getattr(model, "_supports_on_device_sampling", None)
        self._takes_lists = supported is not None
        self._on_device = supported is not False and getattr(args, "base_model_name", None) not in _NOT_ON_DEVICE
        self.name, self.device_name = str(args.model_name), str(args.device_name)
        self.context = context_for(max_seq_len, int(args.max_context_len))
        self.longest_prompt = int(args.max_prefill_chunk_size)
        self.stop_tokens = _stop_tokens(args.tokenizer)

    def encode(self, text: str, *, instruct: bool) -> list[int]:
        """The prompt's tokens, with the chat template's if ``instruct``."""
        with self._tokenizer_lock:
            return list(self._args.encode_prompt(text, instruct=instruct))

    def prefill(self, text: str, most: int, *, instruct: bool, temperature: float, top_p: float) -> int:
        """Reads a prompt and gives the first token of the answer.

        At a temperature it is sampled like the others. The demo's first token is always the most likely one; but who
        asks for a temperature asks for it from the first token on, and for one token it is all there is.

        Args:
            most: tokens of the answer; with the prompt's they are ``context`` at most.
        """
        # 2026 makes room for so many tokens by cutting off the beginning of the prompt, without a word; 2025 does
        # where the model's context is no longer than that. So nothing may be asked for that does not fit.
        with self._tokenizer_lock:
            tokens, _, positions, _ = self._common.preprocess_inputs_prefill(
                [text], self._args.tokenizer, [self._args], instruct, most, max_prefill_len=self.context
            )
        # What an earlier request has left in the cache does no harm: prefill overwrites from the beginning, each
        # decode writes its position before it reads, and none reads beyond its own.
        logits = self._generator.prefill_forward_text(
            tokens[0], page_table=None, kv_cache=self._cache, prompt_lens=positions
        )
        return self._sample(logits, temperature, top_p)

    def decode(self, token: int, position: int, *, temperature: float, top_p: float) -> int:
        """The token after ``token``, which stands at ``position``: the first of an answer at the prompt's length."""
        generator = self._generator
        # Renamed during 2026. Since then, and a little before, it gives a pair: the second is log probabilities.
        forward = getattr(generator, "decode_forward_text", None) or generator.decode_forward
        sampling = self._device_sampling() if temperature == 0 and self._on_device else None
        output = forward(
            self._torch.tensor([[token]]),
            self._torch.tensor([position]),
            page_table=None,
            kv_cache=self._cache,
            enable_trace=False,
            sampling_params=sampling,
        )
        output = output[0] if isinstance(output, tuple) else output
        # One token for each user if it was given how to sample, else what sample_host takes.
        return int(output[0].item()) if sampling is not None else self._sample(output, temperature, top_p)

    def text_of(self, tokens: list[int]) -> str:
        """Tokens to text, as the demo does it."""
        with self._tokenizer_lock:
            return str(self._args.tokenizer.decode(tokens))

    def steady_text_of(self, tokens: list[int]) -> str:
        """Tokens to text, such that more tokens never change the text of the earlier ones.

        Some Hugging Face tokenizers tidy up: they take the space before a full stop away when the stop comes.
        """
        if not hasattr(self._args.tokenizer, "clean_up_tokenization_spaces"):
            return self.text_of(tokens)
        with self._tokenizer_lock:
            return str(self._args.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def _device_sampling(self) -> Any:
        # New ones for every token: 2026 pads these lists, and overwrites what is in them, to suit its kernels. A
        # scalar would be for the first user only there, while 2025 compares the temperature with 0 and knows no lists.
        if self._takes_lists:
            return self._sampling_params(temperature=[0.0], top_k=[self._top_k], top_p=[_GREEDY_TOP_P])
        return self._sampling_params(temperature=0.0, top_k=-1, top_p=1.0)

    def _sample(self, logits: Any, temperature: float, top_p: float) -> int:
        _, tokens = self._common.sample_host(logits, temperature=temperature, top_p=top_p, on_host=True)
        return int(tokens[0].item())


def _performance(precision: Any, args: Any) -> Any:
    return precision.performance(args.n_layers, args.model_name)


def _stop_tokens(tokenizer: Any) -> frozenset[int]:
    # Both generations give a Hugging Face tokenizer the list that Meta's has. Meta's lacks <|end_of_text|>, by which a
    # text without a chat template ends; its name there is eos_id.
    ends = [getattr(tokenizer, name, None) for name in ("eos_id", "eos_token_id")]
    return frozenset(int(token) for token in [*tokenizer.stop_tokens, *ends] if token is not None)
