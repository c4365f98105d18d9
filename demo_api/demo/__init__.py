"""What is known of the demo: where it is, how it is started, and what its end means."""
