"""Every size that a kernel is launched with, as plain integers. No torch, no Triton.

Small tables per architecture instead of autotuning: a server must not stall in the middle of a request, and a table can
be compiled ahead of time and held to gates (`tests/kernels/static`).
"""

from dataclasses import dataclass

__all__ = [
    "ARCHITECTURES",
    "FP8_ARCHITECTURES",
    "INT32_ELEMENTS",
    "PAGE",
    "TILES",
    "ExpandBlocks",
    "MergeBlocks",
    "ShrinkBlocks",
    "arch_of",
    "block_m",
    "cdiv",
    "expand_add_blocks",
    "gemm_expand_blocks",
    "merge_blocks",
    "next_power_of_2",
    "shrink_blocks",
]

PAGE = 16  # ranks per page: the smallest K of a bf16 tensor-core product
INT32_ELEMENTS = 2**31  # kernels index with 32 bits
ARCHITECTURES = ("sm_80", "sm_90", "gfx942")
FP8_ARCHITECTURES = ("sm_90",)  # float8_e4m3fn is in the hardware; emulated, unpacking would cost more than it saves


@dataclass(frozen=True, slots=True)
class ShrinkBlocks:
    """K1. `m` tokens, a tile or a part, by `r` ranks per program, `k` in-features per iteration, K cut into `split`."""

    m: int
    r: int
    k: int
    split: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class ExpandBlocks:
    """K2 and K3. `m` tokens by `n` out-features per program, `k` in-features per iteration (K2 only)."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class MergeBlocks:
    """K4. `n` out-features by `k` in-features per program."""

    n: int
    k: int
    warps: int
    stages: int


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is n or more; 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()


def arch_of(backend: str, capability: int) -> str:
    """The table that a device uses.

    Args:
        backend: "cuda" or "hip".
        capability: Compute capability as 10 * major + minor, such as 90; ignored on "hip".
    """
    if backend == "hip":
        return "gfx942"
    return "sm_90" if capability >= 90 else "sm_80"


# Tokens per tile. Pages are listed per tile, so K1, K2 and K3 of a step share it.
TILES = (16, 64, 128)


def block_m(tokens: int, itemsize: int) -> int:
    """Tokens per tile for a step of `tokens`, whose elements have `itemsize` bytes."""
    largest = TILES[-1] if itemsize == 2 else 64  # exact fp32 has no tensor cores: larger tiles would spill
    return next((tile for tile in TILES if tokens <= tile <= largest), largest)


# By bytes per element of x, then architecture, then tile.
_SHRINK = {
    2: {
        # With PDL K1 hides behind K2's stream of W, and each plane is read by every program along N: few planes.
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
# Weights of one byte: unpacking is what bounds a few tokens, and longer rows per warp need fewer instructions for it.
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


def shrink_blocks(arch: str, tile: int, k: int, itemsize: int) -> ShrinkBlocks:
    """K1's blocks for tiles of `tile` tokens (see `block_m`) and K in-features.

    No more planes than there are iterations to give them: an empty plane would only be written and read.
    """
    b = _SHRINK[itemsize][arch][tile]
    return ShrinkBlocks(b.m, b.r, b.k, min(b.split, next_power_of_2(cdiv(k, b.k))), b.warps, b.stages)


def gemm_expand_blocks(arch: str, tile: int, itemsize: int, weight_itemsize: int) -> ExpandBlocks:
    """K2's blocks for tiles of `tile` tokens and the bytes per element of x and of W."""
    narrow = _GEMM_EXPAND_NARROW.get(arch, {}) if weight_itemsize == 1 and itemsize == 2 else {}
    return narrow.get(tile) or _GEMM_EXPAND[itemsize][arch][tile]


def expand_add_blocks(arch: str, tile: int, itemsize: int) -> ExpandBlocks:
    """K3's blocks for tiles of `tile` tokens."""
    return _EXPAND_ADD[itemsize].get(tile) or _EXPAND_ADD_LARGE[arch]


def merge_blocks(itemsize: int) -> MergeBlocks:
    """K4's blocks."""
    return MergeBlocks(64, 128, 4, 2) if itemsize == 2 else MergeBlocks(32, 64, 4, 2)
