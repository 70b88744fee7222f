"""Processes that share one model: the group, its leader and its followers. Starting them is torchrun's work."""
