"""What runs in the model's own process; its folder is on that process's PYTHONPATH."""
