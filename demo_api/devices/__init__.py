"""Who owns the devices of this host, and what runs on them."""
