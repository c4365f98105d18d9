"""Stand-in for tt-metal's file of after November 2025: the signatures, and what they refuse."""

import os

import tiny_model


class DecodersPrecision:
    @classmethod
    def performance(cls, num_decoders, model_name):
        return ("performance", num_decoders, model_name)


class Tokenizer:
    """A Hugging Face one, which tidies up what it decodes."""

    eos_token_id = tiny_model.END_TURN
    clean_up_tokenization_spaces = True

    def __init__(self):
        self.stop_tokens = [tiny_model.END_TURN]

    def decode(self, token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=None):
        text = tiny_model.text_of(token_ids)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return text.replace(" .", ".").replace(" n't", "n't") if clean_up_tokenization_spaces else text


class ModelArgs(tiny_model.ModelArgs):
    def __init__(self, mesh_device, instruct=False, max_batch_size=1, optimizations=None, max_seq_len=1024 * 128):
        HF_MODEL = os.getenv("HF_MODEL")
        assert HF_MODEL, "Please set HF_MODEL to a HuggingFace name e.g. meta-llama/Llama-3.1-8B-Instruct"
        self.cache_path = os.getenv("TT_CACHE_PATH") or f"model_cache/{HF_MODEL}"
        super().__init__(
            mesh_device,
            HF_MODEL.strip("/").split("/")[-1],
            Tokenizer(),
            instruct=instruct,
            max_batch_size=max_batch_size,
            optimizations=optimizations,
            max_seq_len=max_seq_len,
        )
