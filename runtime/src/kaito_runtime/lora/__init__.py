"""LoRA adapters of one model: records, rank pages, the bank that owns them, routing, and the layers that apply them.

Import what you need from its own module: `records` has no torch, so protocols and the HTTP side can use it.
"""
