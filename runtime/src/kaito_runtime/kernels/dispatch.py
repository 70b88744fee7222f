"""Which way a step is computed, from plain integers alone. No torch: the decision can be read and tested on its own.

Reasons and predicted figures: docs/explanation/lora-kernels.md and `roofline`.
"""

from collections.abc import Sequence
from enum import IntEnum

__all__ = ["PAIR_TOKENS", "PAIR_TOKENS_PDL", "TAIL_PAGES", "Base", "Path", "choose", "split_by_set"]

# Most tokens for K1 and K2. While a step waits for memory, K2 gets its pages for nothing; once it computes (from about
# 295 tokens on H100), the library's product is the faster one, but takes more launches. Where K1 cannot hide behind
# K2's stream the balance tips earlier. Both limits are `roofline`'s predictions.
PAIR_TOKENS_PDL = 1024
PAIR_TOKENS = 128
# Most pages that ride in the tail of [W|B]: what is reserved is memory next to every weight.
TAIL_PAGES = 8
# Row-pages (tokens * pages) that one more pair of products must save, on a CPU, to be worth its calls.
SPLIT_SAVES = 64


class Base(IntEnum):
    """What a layer's base weight is."""

    DENSE = 0  # [N, K] in the dtype of x
    ROW_SCALED = 1  # int8 or fp8 with one factor per row
    OPAQUE = 2  # only its own layer can multiply by it


class Path(IntEnum):
    """How a layer computes a step."""

    BASE = 0  # the plain product; no launch of ours
    MERGED = 1  # the plain product with W + sum s B A, merged before
    CAT = 2  # CPU: A and B side by side, two products
    PAIR = 3  # K1, then K2 with the base product in it
    TAIL = 4  # K1, then the library's product [x|u] [W|B]^T
    ADD = 5  # the library's or the layer's own product, then K1 and K3


def choose(
    *,
    tokens: int,
    pages: int,
    mixes: int = 1,
    gpu: bool,
    pdl: bool = True,
    base: Base = Base.DENSE,
    merged: bool = False,
    tail: int = 0,
) -> Path:
    """The path of one layer for one step.

    Args:
        tokens: In the step.
        pages: Live in the step, in this layer.
        mixes: Different sets of live adapters among the tokens, the empty one included.
        gpu: Triton kernels can run.
        pdl: With programmatic dependent launch.
        base: The layer's weight.
        merged: A merged buffer holds exactly this step's strengths.
        tail: Pages reserved beside W.
    """
    if pages == 0 or tokens == 0:
        return Path.BASE
    if merged and base is Base.DENSE:
        return Path.MERGED
    if not gpu:
        return Path.CAT
    if base is Base.OPAQUE:
        return Path.ADD
    if tokens <= (PAIR_TOKENS_PDL if pdl else PAIR_TOKENS):
        return Path.PAIR
    if base is Base.DENSE and mixes == 1 and pages <= min(tail, TAIL_PAGES):
        return Path.TAIL
    return Path.ADD


def split_by_set(groups: Sequence[tuple[int, int]], pages: int) -> bool:
    """Whether the CPU multiplies tokens with different adapter sets apart, or together with zeros for what a set lacks.

    Args:
        groups: (tokens, live pages) of each adapter set.
        pages: Live pages of all sets together.
    """
    apart = sum(tokens * own for tokens, own in groups)
    together = sum(tokens for tokens, _ in groups) * pages
    return len(groups) > 1 and together - apart > SPLIT_SAVES * (len(groups) - 1)
