"""Stand-in for tt-metal's file of autumn 2026: the signatures, and what they refuse. The rest is as in 2026.

``decode_forward_text`` is ``decode_forward`` now, and gives log probabilities too. The first prefill compiles for all
lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import tiny_model
import torch


@dataclass(frozen=True)
class SamplingParams:
    temperature: float | list[float]
    top_k: int | list[int]
    top_p: float | list[float]
    presence_penalty: float | list[float] = 0.0
    frequency_penalty: float | list[float] = 0.0
    repetition_penalty: float | list[float] = 1.0
    seed: int | list[int] | None = None
    enable_log_probs: bool | list[bool] = False


class Generator:
    def __init__(self, model, model_args, mesh_device, processor=None, tokenizer=None):
        tiny_model.step("Generator")
        mesh_device.check()
        assert processor is None, "the third place after the device is another thing in each generation"
        assert tokenizer is model_args[0].tokenizer
        self.model, self.model_args = model, model_args
        self.already_warmed_up_prefill = False

    def prefill_forward_text(
        self,
        tokens,
        page_table=None,
        kv_cache=None,
        prompt_lens=None,
        empty_slots=None,
        enable_trace=True,
        model_id_warmup=None,
        sampling_params=None,
        start_pos=None,
        return_hidden_states=False,
        warmup_prefill=True,
    ):
        assert sampling_params is None, "with these it would give tokens"
        if warmup_prefill and not self.already_warmed_up_prefill:
            self.already_warmed_up_prefill = True
            tiny_model.step("warmup")
        return tiny_model.prefill_all(self.model, self.model_args, tokens, page_table, kv_cache, prompt_lens)

    def decode_forward(
        self,
        tokens,
        start_pos,
        page_table=None,
        kv_cache=None,
        enable_trace=True,
        read_from_device=True,
        sampling_params=None,
        reset_batch=False,
        prompt_tokens=None,
        output_tokens=None,
        slot_remap=None,
    ):
        tiny_model.step("decode", sampling_params=sampling_params)
        rows = tiny_model.checked_rows(self.model_args[0], tokens, start_pos)
        assert kv_cache is None or kv_cache[0] is None
        if enable_trace:
            raise TypeError("'NoneType' object is not iterable")  # traces compare page tables
        token, position = tokens[0].item(), start_pos[0].item()
        if sampling_params is None:
            return self.model[0].decode_logits(token, position), None
        assert self.model[0]._supports_on_device_sampling, "Sampling module not found in model for sampling on device."
        for values in (sampling_params.temperature, sampling_params.top_k, sampling_params.top_p):
            assert isinstance(values, list), "a scalar is for user 0 only"
            assert len(values) == rows, f"{len(values)} values for {rows} users"
        assert sampling_params.temperature[0] == 0, "the direct engine samples on the host"
        return torch.tensor([self.model[0].decode(token, position)]), None
