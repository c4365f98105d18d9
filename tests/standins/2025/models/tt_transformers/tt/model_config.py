"""Stand-in for tt-metal's file of July 2025: the signatures, and what they refuse."""

import os

import tiny_model


class DecodersPrecision:
    @classmethod
    def performance(cls, num_decoders, model_name):
        return ("performance", num_decoders, model_name)


class Tokenizer:
    """Meta's: its list of stop tokens lacks the end of a text."""

    eos_id = tiny_model.END_TEXT

    def __init__(self):
        self.stop_tokens = [tiny_model.END_TURN]

    def decode(self, t):
        return tiny_model.text_of(t)


class ModelArgs(tiny_model.ModelArgs):
    def __init__(self, mesh_device, instruct=False, max_batch_size=1, optimizations=None, max_seq_len=1024 * 128):
        LLAMA_DIR = os.getenv("LLAMA_DIR")
        HF_MODEL = os.getenv("HF_MODEL")
        assert not (LLAMA_DIR and HF_MODEL), "Only one of LLAMA_DIR or HF_MODEL should be set"
        assert LLAMA_DIR or HF_MODEL, "Please set HF_MODEL or LLAMA_DIR"
        super().__init__(
            mesh_device,
            (LLAMA_DIR or HF_MODEL).split("/")[-1],
            Tokenizer(),
            instruct=instruct,
            max_batch_size=max_batch_size,
            optimizations=optimizations,
            max_seq_len=max_seq_len,
        )
