"""Stand-in for tt-metal's file of July 2025: the signatures, and what they refuse."""

from dataclasses import dataclass

import tiny_model
import torch


@dataclass(frozen=True)
class SamplingParams:
    temperature: float
    top_k: int
    top_p: float


class Generator:
    def __init__(self, model, model_args, mesh_device, tokenizer=None, formatter=None):
        tiny_model.step("Generator")
        mesh_device.check()
        assert formatter is None, "the third place after the device is another thing in each generation"
        assert tokenizer is model_args[0].tokenizer
        self.model, self.model_args = model, model_args

    def prefill_forward_text(self, tokens, page_table=None, kv_cache=None, prompt_lens=None, empty_slots=None):
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
        assert sampling_params is None or sampling_params.temperature == 0, (
            "Currently only supporting greedy decoding (temperature=0) on device"
        )
        tiny_model.step("decode", sampling_params=sampling_params)
        tiny_model.checked_rows(self.model_args[0], tokens, start_pos)
        assert kv_cache is None or kv_cache[0] is None
        if enable_trace:
            raise TypeError("'NoneType' object is not iterable")  # traces compare page tables
        token, position = tokens[0].item(), start_pos[0].item()
        if sampling_params is not None:
            return torch.tensor([self.model[0].decode(token, position)])
        return self.model[0].decode_logits(token, position)
