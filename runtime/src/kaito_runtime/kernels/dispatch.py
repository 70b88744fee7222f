"""Which way a layer computes a step, decided from plain integers. No torch, so the table can be tested on its own.

The reasons are in docs/explanation/lora-kernels.md, the predicted figures in runtime/bench/roofline.py.
"""

from collections.abc import Sequence
from enum import IntEnum

__all__ = ["PAIR_TOKENS", "PAIR_TOKENS_PDL", "Base", "Path", "choose", "split_by_set"]

# Most tokens for shrink + gemm_expand. While a step waits for memory, the pages cost gemm_expand nothing; once it waits
# for arithmetic (from about 295 tokens on H100) the library's product is faster, but takes one launch more. Without PDL
# shrink cannot hide behind the stream of W, so the balance tips earlier. Both limits are the roofline's predictions.
PAIR_TOKENS_PDL = 1024
PAIR_TOKENS = 128
# Few programs along N, each with a long way along K, leave most of the device idle: gemm_expand does not cut K, the
# library's product does. Keys and values of a Llama of 8B (N = 1024) would be 32 programs on 132 multiprocessors.
NARROW, LONG, NARROW_TOKENS = 2048, 2048, 64
# Products of one token with one page that a CPU must save to be worth one more pair of library calls.
SPLIT_SAVES = 64


class Base(IntEnum):
    """What a layer's base weight is."""

    DENSE = 0  # [N, K] in the dtype of x
    ROW_SCALED = 1  # int8 or fp8 with one factor per row
    OPAQUE = 2  # only the layer itself can multiply by it


class Path(IntEnum):
    """How a layer computes a step on the kernels' page layout."""

    BASE = 0  # the layer's own product; no launch of ours
    PAIR = 1  # shrink, then gemm_expand, which has the base product in it
    ADD = 2  # the layer's own product, then shrink and expand_add


def choose(*, tokens: int, pages: int, all_live: bool, pdl: bool, base: Base, k: int, n: int) -> Path:
    """Returns the path of one layer for one step.

    A row without a live adapter must have the bits of the layer's own product, which gemm_expand does not promise.

    Args:
        tokens: T, in the step.
        pages: Rank pages that are live in the step, in this layer.
        all_live: Every token has a live adapter in this layer.
        pdl: The device has programmatic dependent launch.
        base: The layer's weight.
        k: In-features.
        n: Out-features.
    """
    if pages == 0 or tokens == 0:
        return Path.BASE
    if base is Base.OPAQUE or not all_live:
        return Path.ADD
    if base is Base.DENSE and n <= NARROW and k >= LONG and tokens <= NARROW_TOKENS:
        return Path.ADD
    return Path.PAIR if tokens <= (PAIR_TOKENS_PDL if pdl else PAIR_TOKENS) else Path.ADD


def split_by_set(groups: Sequence[tuple[int, int]], pages: int) -> bool:
    """Returns whether a CPU should multiply tokens with different adapter sets apart.

    Otherwise all are multiplied together, with zeros for the adapters that a token does not have.

    Args:
        groups: (tokens, live pages) of each adapter set.
        pages: Live pages of all sets together.
    """
    apart = sum(tokens * own for tokens, own in groups)
    together = sum(tokens for tokens, _ in groups) * pages
    return len(groups) > 1 and together - apart > SPLIT_SAVES * (len(groups) - 1)
