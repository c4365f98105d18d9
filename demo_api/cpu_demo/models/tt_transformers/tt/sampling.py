"""What is done to sampling parameters before the model sees them."""

DEFAULT_SEED = 213919
SAMPLING_KEYS = ("temperature", "top_p", "top_k", "seed")


def check_sampling(params):
    """The engine's sampling parameters for the demo's. Without a seed a fixed one is taken, so that runs repeat."""
    unknown = sorted(set(params) - set(SAMPLING_KEYS))
    assert not unknown, f"Unknown sampling parameters: {', '.join(unknown)}; there are {', '.join(SAMPLING_KEYS)}"
    for key, value in params.items():
        assert type(value) in (int, float), f"{key} has to be a number: {value!r}"
    temperature = params.get("temperature", 0)
    return {
        "temperature": temperature,
        "top_p": params.get("top_p", 1.0),
        # 1 makes temperature 0 greedy beyond doubt; the engine's "all of them" is 0, not -1.
        "top_k": 1 if temperature <= 0 else max(0, int(params.get("top_k", 0))),
        "min_p": 0,
        "seed": int(params.get("seed", DEFAULT_SEED)),
        # The order of the demo's own sampler. The engine's default applies the temperature last.
        "samplers": ["temperature", "top_k", "top_p"],
    }
