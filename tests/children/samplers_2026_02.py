"""The end of each child in a demo home of February 2026 or later: its sampling parameters may have a seed, too."""

# What the device has for a user for whom there is no value: the most likely token.
SURPLUS = {"temperature": 0.0, "top_p": 1.0, "top_k": 1}


def samplers(sampling_params, users):
    """What each user's tokens are sampled with, on a device that can, and on the host where it cannot."""
    seed = sampling_params["seed"] if "seed" in sampling_params else None  # noqa: SIM401 (as upstream writes it)
    on_device = {name: padded(sampling_params[name], users, surplus) for name, surplus in SURPLUS.items()}
    on_device["seed"] = padded(seed, users, None)
    on_host = {name: sampling_params[name] for name in ("temperature", "top_p")}
    if isinstance(sampling_params["temperature"], list):
        # The host knows one value for all. The demo takes this one along whether or not anybody wants it.
        on_host = {name: sampling_params[name][0] for name in (*on_host, "enable_log_probs")}
    return {
        "device": [{name: values[user] for name, values in on_device.items()} for user in range(users)],
        "host": [{name: on_host[name] for name in ("temperature", "top_p")}] * users,
    }


def padded(value, users, surplus):
    values = value if isinstance(value, list) else [value]
    return values + [surplus] * (users - len(values))
