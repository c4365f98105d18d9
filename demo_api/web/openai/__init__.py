"""OpenAI's API in front of either engine."""
