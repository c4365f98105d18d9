"""The HTTP door: routes that check requests, pass them to an engine and answer in JSON. The only room with Flask."""
