"""Clusters for tests: emulated, in memory or real, and simulated workloads."""
