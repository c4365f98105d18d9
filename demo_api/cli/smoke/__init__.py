"""Tests the demo with a few prompts, for CI."""
