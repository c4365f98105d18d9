"""Compares the answers of two servers."""
