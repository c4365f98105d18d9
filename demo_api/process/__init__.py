"""One process tree: spawned, followed, stopped."""
