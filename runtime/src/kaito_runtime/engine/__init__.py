"""Owns the model: queues requests, runs forward passes, chooses tokens. Knows neither HTTP nor other ranks."""
