"""The conftest.py of a demo home whose Python lacks a package: pytest calls that a usage error."""

raise ImportError("No module named 'torch'")
