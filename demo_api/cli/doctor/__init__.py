"""Looks for what a user cannot see before minutes are lost on it. Nothing is changed, and no device is opened."""
