"""Stand-in for tt-metal's file of after November 2025: the signatures, and what they refuse."""

import tiny_model
import ttnn
from tiny_model import sample_host

__all__ = ["create_tt_model", "preprocess_inputs_prefill", "sample_host"]


def preprocess_inputs_prefill(
    input_prompts, tokenizer, model_args, instruct, max_generated_tokens, max_prefill_len=128 * 1024
):
    for m_args in model_args:
        assert max_prefill_len <= m_args.max_context_len, "max_prefill_len cannot exceed max_context_len"
    max_prefill_len -= max_generated_tokens
    assert max_prefill_len > 0, "max_prefill_len must be greater than max_generated_tokens"
    encoded = [model_args[0].encode_prompt(prompt, instruct=instruct) for prompt in input_prompts]
    if min(map(len, encoded)) > max_prefill_len:
        encoded = [one[-max_prefill_len:] for one in encoded]
    assert max(map(len, encoded)) <= model_args[0].max_seq_len, "Max prompt length exceeds model max seq len"
    return tiny_model.padded_rows(encoded)


def create_tt_model(
    mesh_device,
    instruct,
    max_batch_size,
    optimizations,
    max_seq_len,
    paged_attention_config=None,
    dtype=ttnn.bfloat8_b,
    state_dict=None,
    num_layers=None,
):
    from models.tt_transformers.tt.model_config import ModelArgs

    args = ModelArgs(
        mesh_device,
        instruct=instruct,
        max_batch_size=max_batch_size,
        optimizations=optimizations,
        max_seq_len=max_seq_len,
    )
    tiny_model.step("create_tt_model", optimizations=args.optimizations, max_seq_len=max_seq_len, dtype=dtype)
    assert paged_attention_config is None, "the stand-in has no pages"
    model = tiny_model.Model(args, tiny_model.END_TURN)
    model._supports_on_device_sampling = tiny_model.supports_sampling
    return args, model, None, {}
