"""Every configuration that the dispatch can choose, and the budget that each must keep."""

from collections.abc import Iterator
from itertools import product

from compiled import DEVICE, Config, Figures

from kaito_runtime.kernels.expand_add import expand_add_kernel
from kaito_runtime.kernels.gemm_expand import gemm_expand_kernel
from kaito_runtime.kernels.launch import (
    ARCHITECTURES,
    FP8_ARCHITECTURES,
    PAGE,
    TILES,
    block_t,
    expand_add_blocks,
    gemm_expand_blocks,
    shrink_blocks,
)
from kaito_runtime.kernels.shrink import shrink_kernel

LARGE_K = 4096  # more iterations than planes, as all but the smallest models have
INDICES = {name: "*i32" for name in ("start_ptr", "pages_ptr", "adapters_ptr", "live_ptr")}
DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}


def configs() -> Iterator[Config]:
    for arch, (dtype, size) in product(ARCHITECTURES, DTYPES.items()):
        for tile in TILES:
            if tile != block_t(tile, size):
                continue  # a step of this type never has such tiles
            for even in (True, False) if dtype == "bf16" else (True,):  # an uneven K changes the masks alone
                yield shrink(arch, tile, dtype, even)
                yield gemm_expand(arch, tile, dtype, even, bias=not even)
            yield expand_add(arch, tile, dtype)
    for arch, tile, narrow in product(ARCHITECTURES, TILES, ("i8", "fp8e4nv")):
        if narrow == "fp8e4nv" and arch not in FP8_ARCHITECTURES:
            continue
        # Decode is near the limit of instructions, so every variant counts there.
        for dtype, even in product(("bf16", "fp16"), (True, False)) if tile == TILES[0] else (("bf16", True),):
            yield gemm_expand(arch, tile, dtype, even, narrow=narrow, bias=not even)


#: Devices that use another's table: it must fit them, too.
RELATIVES = {"sm_89": "sm_80", "sm_100": "sm_90", "sm_120": "sm_80"}


def relatives() -> Iterator[Config]:
    """The same for devices without a table of their own."""
    for arch, (dtype, size), tile in product(RELATIVES, DTYPES.items(), TILES):
        if tile != block_t(tile, size):
            continue
        yield shrink(arch, tile, dtype, True)
        yield gemm_expand(arch, tile, dtype, True)
        yield expand_add(arch, tile, dtype)
        if dtype == "bf16":
            yield gemm_expand(arch, tile, dtype, True, narrow="i8")


def table_of(arch: str) -> str:
    return RELATIVES.get(arch, arch)


def planes(arch: str, tile: int, dtype: str) -> int:
    return shrink_blocks(table_of(arch), tile, LARGE_K, DTYPES[dtype]).split


def has_pdl(arch: str) -> bool:
    return arch in ("sm_90", "sm_100", "sm_120")


def shrink(arch: str, tile: int, dtype: str, even: bool) -> Config:
    b = shrink_blocks(table_of(arch), tile, LARGE_K, DTYPES[dtype])
    return Config(
        shrink_kernel,
        f"shrink {dtype} {b.t}x{b.r}x{b.k} of {tile}, {b.split} planes" + ("" if even else " ragged"),
        arch,
        {"x_ptr": f"*{dtype}", "a_ptr": f"*{dtype}", "s_ptr": "*fp32", "u_ptr": "*fp32", **INDICES},
        dict(
            BLOCK_T=b.t, BLOCK_R=b.r, BLOCK_K=b.k, SPLIT=b.split, EVEN_K=even, PDL=has_pdl(arch), UPCAST=False,
            TILE=tile, PAGE=PAGE,
        ),
        b.warps,
        b.stages,
        b.t * b.r * b.k,
    )  # fmt: skip


def gemm_expand(
    arch: str, tile: int, dtype: str, even: bool, *, narrow: str | None = None, bias: bool = False
) -> Config:
    b = gemm_expand_blocks(table_of(arch), tile, DTYPES[dtype], 1 if narrow else DTYPES[dtype])
    weight = narrow or dtype
    pointers = {"x_ptr": dtype, "w_ptr": weight, "scale_ptr": "fp32" if narrow else weight, "bias_ptr": dtype}
    pointers |= {"u_ptr": "fp32", "b_ptr": dtype, "y_ptr": dtype}
    return Config(
        gemm_expand_kernel,
        f"gemm_expand {dtype}{' ' + narrow if narrow else ''} {b.t}x{b.n}x{b.k}" + ("" if even else " ragged"),
        arch,
        {name: f"*{kind}" for name, kind in pointers.items()} | INDICES,
        dict(
            BLOCK_T=b.t, BLOCK_N=b.n, BLOCK_K=b.k, SPLIT=planes(arch, tile, dtype), EVEN_K=even,
            HAS_SCALE=narrow is not None, HAS_BIAS=bias, PDL=has_pdl(arch), UPCAST=False, PAGE=PAGE,
        ),
        b.warps,
        b.stages,
        b.t * b.n * b.k,
    )  # fmt: skip


def expand_add(arch: str, tile: int, dtype: str) -> Config:
    b = expand_add_blocks(table_of(arch), tile, DTYPES[dtype])
    return Config(
        expand_add_kernel,
        f"expand_add {dtype} {b.t}x{b.n}x{PAGE}",
        arch,
        {"u_ptr": "*fp32", "b_ptr": f"*{dtype}", "y_ptr": f"*{dtype}", **INDICES},
        dict(BLOCK_T=b.t, BLOCK_N=b.n, SPLIT=planes(arch, tile, dtype), PDL=has_pdl(arch), UPCAST=False, PAGE=PAGE),
        b.warps,
        b.stages,
        b.t * b.n * PAGE,
    )


def misfits(config: Config, f: Figures) -> list[str]:
    """What keeps a binary from running on a device without a table of its own. How fast it is, is for a card to say."""
    found = []
    if f.spill_bytes > 32:  # of exact fp32, which has no tensor cores: a few registers that another table would save
        found.append(f"spills {f.spill_bytes} bytes, allowed 32")
    if f.shared > DEVICE[config.arch][1]:
        found.append(f"shared memory {f.shared} bytes, the device has {DEVICE[config.arch][1]}")
    if config.constants["PDL"] and f.pdl_wait + f.pdl_launch != 1:
        found.append(f"{f.pdl_wait} griddepcontrol.wait, {f.pdl_launch} launch_dependents")
    return found


def breaches(config: Config, f: Figures) -> list[str]:
    """What the binary does not keep, in words with both figures."""
    kernel, dtype = config.name.split()[:2]
    amd = config.arch == "gfx942"
    streams = kernel != "expand_add"  # their loops carry the work; expand_add waits for memory
    decode = streams and config.constants["BLOCK_T"] == 16
    found = []

    def gate(ok: bool, words: str) -> None:
        if not ok:
            found.append(words)

    gate(f.spill_bytes == 0, f"spills {f.spill_bytes} bytes, allowed 0")
    largest = DEVICE[config.arch][1]
    gate(f.shared <= largest, f"shared memory {f.shared} bytes, the device has {largest}")
    least = 2 if decode else 1
    gate(f.programs >= least, f"{f.programs} programs per multiprocessor, at least {least}")
    gate(f.pdl_launch == (config.arch == "sm_90" and kernel == "shrink"), f"{f.pdl_launch} launch_dependents")
    gate(f.pdl_wait == (config.arch == "sm_90" and kernel != "shrink"), f"{f.pdl_wait} griddepcontrol.wait")
    if dtype == "fp32":
        return found  # exact fp32 has no tensor-core product
    rows = config.constants["BLOCK_T"]
    wanted = "v_mfma" if amd else "HGMMA" if config.arch == "sm_90" and rows >= 64 and streams else "HMMA"
    if not streams and config.arch == "sm_90" and f.mma == "HGMMA":
        wanted = "HGMMA"  # either will do where memory is the limit
    gate(f.mma == wanted, f"matrix instruction {f.mma}, expected {wanted}")
    gate(f.efficiency >= 0.95, f"matrix-instruction efficiency {f.efficiency:.2f}, at least 0.95")
    if streams:
        most = 20 if " i8" in config.name or "fp8" in config.name else 12
        gate(f.instructions_per_mma <= most, f"{f.instructions_per_mma:.1f} instructions per MMA, at most {most}")
        gate(amd or f.async_copies > 0, "no asynchronous copies")
    if decode and not amd:
        gate(f.in_flight >= 32 * 1024, f"{f.in_flight} bytes in flight per multiprocessor, at least {32 * 1024}")
    return found
