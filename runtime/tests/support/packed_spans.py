"""Requests in a paged cache, for tests of attention."""

from collections.abc import Sequence

import torch

from kaito_runtime.engine.packing import CacheMemory, Piece

BLOCK = 4


def place(
    spans: Sequence[tuple[int, int]], *, side_by_side: bool, kernel: bool = False
) -> tuple[list[Piece], CacheMemory, list[int]]:
    """Returns the spans with blocks, a cache full of what is no number, and the cells of all keys."""
    counts = [-(-keys // BLOCK) for _, keys in spans]
    blocks = list(range(2 * sum(counts)))
    if not side_by_side:
        blocks = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(1)).tolist()
    memory = CacheMemory(len(blocks), BLOCK, kernel=kernel)
    placed, cells = [], []
    for (queries, keys), count in zip(spans, counts, strict=True):
        own, blocks = blocks[:count], blocks[count:]
        placed.append(Piece(queries, keys, own))
        cells += [own[i // BLOCK] * BLOCK + i % BLOCK for i in range(keys)]
    return placed, memory, cells
