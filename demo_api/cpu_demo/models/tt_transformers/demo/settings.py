"""The parameters of one run: the test's own, and what the command line or a plugin puts in their place."""

from dataclasses import dataclass, field, replace
from pathlib import Path

SAMPLE_PROMPTS = Path(__file__).parent / "sample_prompts"


@dataclass(frozen=True)
class Settings:
    """What a run is told.

    Attributes:
        input_prompts: the path of a JSON file, the file's list itself, one character, or a list of one prompt.
        instruct: whether the model's chat template is used.
        repeat_batches: how often the batch is run.
        max_seq_len: the longest prompt with its answer, in tokens.
        batch_size: how many users there are.
        max_generated_tokens: how many iterations the decode has at most.
        sampling_params: temperature, top_p, top_k, seed.
        stop_at_eos: whether a user is done at the end of the answer.
        data_parallel: groups of devices.
    """

    input_prompts: object
    batch_size: int
    instruct: bool = True
    repeat_batches: int = 1
    max_seq_len: int = 1024
    max_generated_tokens: int = 200
    sampling_params: dict = field(default_factory=lambda: {"temperature": 0, "top_p": 0.08})
    stop_at_eos: bool = True
    data_parallel: int = 1

    def overridden(self, options):
        """These settings with pytest's ``options``. A falsy option is as good as none, but for the two switches."""
        given = {name: getattr(options, name) for name in vars(self)}
        switches = {name: given.pop(name) for name in ("instruct", "stop_at_eos")}
        changes = {name: value for name, value in given.items() if value}
        changes.update({name: bool(value) for name, value in switches.items() if value in (0, 1)})
        return replace(self, **changes)


BATCH_1 = Settings(str(SAMPLE_PROMPTS / "batch_1.json"), batch_size=1)
BATCH_32 = Settings(str(SAMPLE_PROMPTS / "batch_32.json"), batch_size=32)
