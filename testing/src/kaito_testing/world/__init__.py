"""Clusters for tests: emulated, in memory, real, and what runs in them."""
