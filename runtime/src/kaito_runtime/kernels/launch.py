"""Every size that a kernel is launched with, as plain integers. No torch, no Triton.

Small tables per architecture instead of autotuning: a server must not stall in the middle of a request, and every entry
can be compiled ahead of time and checked (`runtime/tests/kernels/static`).
"""

from dataclasses import dataclass, replace
from functools import cache

__all__ = [
    "ARCHITECTURES",
    "FP8_ARCHITECTURES",
    "INT32_ELEMENTS",
    "PAGE",
    "TILES",
    "ExpandBlocks",
    "ShrinkBlocks",
    "arch_of",
    "block_t",
    "cdiv",
    "expand_add_blocks",
    "gemm_expand_blocks",
    "has_kernels",
    "next_power_of_2",
    "shrink_blocks",
]

PAGE = 16  # ranks per page: the smallest K of a bf16 tensor-core product
INT32_ELEMENTS = 2**31  # kernels index with 32 bits
ARCHITECTURES = ("sm_80", "sm_90", "gfx942")
FP8_ARCHITECTURES = ("sm_90",)  # float8_e4m3fn is in the hardware; emulated, unpacking would cost more than it saves


@dataclass(frozen=True, slots=True)
class ShrinkBlocks:
    """Sizes of one program of `shrink`.

    Attributes:
        t: Tokens; divides the tile.
        r: Ranks.
        k: In-features per iteration.
        split: Planes that K is cut into.
        warps: Warps per program.
        stages: Iterations whose loads are in flight.
    """

    t: int
    r: int
    k: int
    split: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class ExpandBlocks:
    """Sizes of one program of `gemm_expand` and of `expand_add`.

    Attributes:
        t: Tokens; the tile.
        n: Out-features.
        k: In-features per iteration of `gemm_expand`; `expand_add` has none.
        warps: Warps per program.
        stages: Iterations whose loads are in flight.
    """

    t: int
    n: int
    k: int
    warps: int
    stages: int


def cdiv(a: int, b: int) -> int:
    """Returns a / b, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """Returns the smallest power of two that is at least n; 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()


def arch_of(backend: str, capability: int) -> str:
    """Returns which table a device uses.

    Args:
        backend: "cuda" or "hip".
        capability: Compute capability as 10 * major + minor, such as 90; ignored on "hip".
    """
    if backend == "hip":
        return "gfx942"
    # sm_12x are consumer and workstation cards: 99 KiB of shared memory for a program, and no wgmma, as sm_89.
    return "sm_90" if 90 <= capability < 120 else "sm_80"


def has_kernels(backend: str, capability: int) -> bool:
    """Returns whether the kernels run on a device: they need tensor cores for bf16 and asynchronous copies (sm_80).

    Older ones, such as V100 (sm_70) and T4 (sm_75), compute the same in plain torch, on the same pages.

    Args:
        backend: "cuda" or "hip".
        capability: Compute capability as 10 * major + minor; ignored on "hip".
    """
    return backend == "hip" or capability >= 80


# Tokens per tile. Live pages are listed per tile, so all kernels of a step have the same one.
TILES = (16, 64, 128)


def block_t(tokens: int, itemsize: int) -> int:
    """Returns the tokens per tile for a step.

    Args:
        tokens: In the step.
        itemsize: Bytes per element of x.
    """
    largest = TILES[-1] if itemsize == 2 else 64  # exact fp32 has no tensor cores: larger tiles would spill
    return next((tile for tile in TILES if tokens <= tile <= largest), largest)


# By bytes per element of x, then architecture, then tile.
_SHRINK = {
    2: {
        # With PDL, shrink hides behind the stream of W, and each plane is read by every program along N: few planes.
        "sm_90": {
            16: ShrinkBlocks(16, 64, 128, 4, 4, 3),
            64: ShrinkBlocks(64, 64, 64, 4, 4, 4),
            128: ShrinkBlocks(64, 64, 128, 2, 4, 4),
        },
        "sm_80": {
            16: ShrinkBlocks(16, 64, 128, 8, 4, 3),
            64: ShrinkBlocks(64, 64, 64, 8, 4, 3),
            128: ShrinkBlocks(64, 64, 128, 2, 4, 3),
        },
        "gfx942": {
            16: ShrinkBlocks(16, 64, 128, 8, 4, 2),
            64: ShrinkBlocks(64, 64, 64, 4, 4, 2),
            128: ShrinkBlocks(64, 64, 64, 2, 4, 2),
        },
    },
    4: {arch: {16: ShrinkBlocks(16, 32, 64, 8, 4, 3), 64: ShrinkBlocks(64, 32, 32, 4, 4, 3)} for arch in ARCHITECTURES},
}
_GEMM_EXPAND = {
    2: {
        "sm_90": {
            16: ExpandBlocks(16, 32, 128, 4, 5),
            64: ExpandBlocks(64, 64, 64, 4, 4),
            128: ExpandBlocks(128, 128, 64, 8, 3),
        },
        "sm_80": {
            16: ExpandBlocks(16, 32, 128, 4, 5),
            64: ExpandBlocks(64, 64, 64, 4, 4),
            128: ExpandBlocks(128, 128, 32, 8, 4),
        },
        "gfx942": {
            16: ExpandBlocks(16, 64, 128, 4, 2),
            64: ExpandBlocks(64, 64, 64, 4, 2),
            128: ExpandBlocks(128, 128, 32, 8, 2),
        },
    },
    4: {arch: {16: ExpandBlocks(16, 32, 64, 4, 3), 64: ExpandBlocks(64, 32, 32, 4, 3)} for arch in ARCHITECTURES},
}
# Weights of one byte: with few tokens unpacking is the limit, and longer rows per warp unpack in fewer instructions.
_GEMM_EXPAND_NARROW = {
    "sm_90": {16: ExpandBlocks(16, 32, 256, 2, 3)},
    "sm_80": {16: ExpandBlocks(16, 64, 512, 4, 2)},
}
_EXPAND_ADD = {
    2: {16: ExpandBlocks(16, 64, PAGE, 4, 2), 64: ExpandBlocks(64, 64, PAGE, 4, 2)},
    4: {16: ExpandBlocks(16, 64, PAGE, 4, 2), 64: ExpandBlocks(64, 64, PAGE, 8, 2)},
}
_EXPAND_ADD_LARGE = {
    "sm_90": ExpandBlocks(128, 128, PAGE, 8, 2),
    "sm_80": ExpandBlocks(128, 128, PAGE, 8, 2),
    "gfx942": ExpandBlocks(128, 128, PAGE, 4, 2),
}


@cache
def shrink_blocks(arch: str, tile: int, k: int, itemsize: int) -> ShrinkBlocks:
    """Returns the blocks of `shrink`, with at most one plane per iteration over K: an empty one would cost a write.

    Args:
        arch: One of `ARCHITECTURES`.
        tile: Tokens per tile, see `block_t`.
        k: In-features.
        itemsize: Bytes per element of x.
    """
    b = _SHRINK[itemsize][arch][tile]
    return replace(b, split=min(b.split, next_power_of_2(cdiv(k, b.k))))


@cache
def gemm_expand_blocks(arch: str, tile: int, itemsize: int, weight_itemsize: int) -> ExpandBlocks:
    """Returns the blocks of `gemm_expand`.

    Args:
        arch: One of `ARCHITECTURES`.
        tile: Tokens per tile, see `block_t`.
        itemsize: Bytes per element of x.
        weight_itemsize: Bytes per element of W.
    """
    narrow = _GEMM_EXPAND_NARROW.get(arch, {}) if weight_itemsize == 1 and itemsize == 2 else {}
    return narrow.get(tile) or _GEMM_EXPAND[itemsize][arch][tile]


@cache
def expand_add_blocks(arch: str, tile: int, itemsize: int) -> ExpandBlocks:
    """Returns the blocks of `expand_add`.

    Args:
        arch: One of `ARCHITECTURES`.
        tile: Tokens per tile, see `block_t`.
        itemsize: Bytes per element of y.
    """
    return _EXPAND_ADD[itemsize].get(tile) or _EXPAND_ADD_LARGE[arch]
