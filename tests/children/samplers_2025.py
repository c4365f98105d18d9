"""The end of each child in a demo home of 2025: what the demo of that time makes of its sampling parameters."""


def samplers(sampling_params, users):
    """What each user's tokens are sampled with: the device takes the most likely one, all else is the host's."""
    temperature = sampling_params["temperature"]
    if temperature == 0:
        return {"device": [{"temperature": 0.0}] * users}
    return {"host": [{"temperature": float(temperature), "top_p": float(sampling_params["top_p"])}] * users}
