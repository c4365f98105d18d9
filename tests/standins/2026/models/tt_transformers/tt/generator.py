"""Stand-in for tt-metal's file of after November 2025: the signatures, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass

import tiny_model
import torch


@dataclass(frozen=True)
class SamplingParams:
    temperature: float | list[float]
    top_k: int | list[int]
    top_p: float | list[float]


def format_sampling_params(sampling_params, rows):
    """As the real one, it works on the very lists that it is given: it pads them and makes greedy out of temperature 0.

    The real one takes a scalar, for the first user only. Refused here, so that nobody relies on it.
    """
    for values in (sampling_params.temperature, sampling_params.top_k, sampling_params.top_p):
        assert isinstance(values, list), "a scalar is for user 0 only"
        assert len(values) == rows, f"{len(values)} values for {rows} users"
    greedy = sampling_params.temperature[0] == 0
    sampling_params.temperature[:] = [1.0] * 32
    sampling_params.top_k[:] = [1] * 32
    sampling_params.top_p.extend([1.0] * 31)
    return greedy


class Generator:
    def __init__(self, model, model_args, mesh_device, processor=None, tokenizer=None):
        tiny_model.step("Generator")
        mesh_device.check()
        assert processor is None, "the third place after the device is another thing in each generation"
        assert tokenizer is model_args[0].tokenizer
        self.model, self.model_args = model, model_args

    def prefill_forward_text(
        self, tokens, page_table=None, kv_cache=None, prompt_lens=None, empty_slots=None, enable_trace=True
    ):
        return tiny_model.prefill_all(self.model, self.model_args, tokens, page_table, kv_cache, prompt_lens)

    def decode_forward_text(
        self,
        tokens,
        start_pos,
        page_table=None,
        kv_cache=None,
        enable_trace=True,
        read_from_device=True,
        sampling_params=None,
    ):
        tiny_model.step("decode", sampling_params=sampling_params)
        rows = tiny_model.checked_rows(self.model_args[0], tokens, start_pos)
        assert kv_cache is None or kv_cache[0] is None
        if enable_trace:
            raise TypeError("'NoneType' object is not iterable")  # traces compare page tables
        token, position = tokens[0].item(), start_pos[0].item()
        if sampling_params is None:
            return self.model[0].decode_logits(token, position)
        assert self.model[0]._supports_on_device_sampling, "Sampling module not found in model for sampling on device."
        assert format_sampling_params(sampling_params, rows), "the direct engine samples on the host"
        return torch.tensor([self.model[0].decode(token, position)])
