"""Processes that share one model: the group, its leader and its followers. torchrun starts them."""
