"""The matrix products of LoRA layers, one per file: reference, Triton kernel and launcher. Nothing here knows a layer.

Symbols everywhere: T tokens of a step, K in-features, N out-features, R ranks, A adapters, P pages of 16 ranks; x is
`[T, K]`, W `[N, K]`, y `[T, N]`.
"""
