"""What each path should cost on a GPU: arithmetic from data sheets, predicted, not measured. Pure floats, no torch.

`python -m kaito_runtime.kernels.roofline` prints the overhead of adapters over the base product for every row of the
dispatch table. Replace a figure by a measured one as soon as there is one (`runtime/bench/bench_gpu.py`).
"""

from dataclasses import dataclass

from kaito_runtime.kernels.dispatch import TAIL_PAGES, Path, choose
from kaito_runtime.kernels.launch import PAGE, block_m, cdiv, expand_add_blocks, gemm_expand_blocks, shrink_blocks

__all__ = ["A100", "DEVICES", "H100", "Device", "Layer", "main", "overhead", "predicted_us", "rivals_us"]

BYTES = 2  # bf16


@dataclass(frozen=True, slots=True)
class Device:
    """What a device can do, per microsecond, at the part of its data sheet's figure that good kernels reach.

    Attributes:
        arch: Key of the tables in `launch`.
        hbm: Bytes from memory: 85% of the data sheet.
        l2: Bytes from L2 to all multiprocessors; assumed, near published microbenchmarks.
        library: bf16 floating-point operations of the vendor's product: 70%.
        triton: The same of a plain Triton product: 58%.
        launch: Microseconds that a dependent launch inside a CUDA graph costs.
        pdl: The same with programmatic dependent launch, or None where the device has none.
    """

    name: str
    arch: str
    hbm: float
    l2: float
    library: float
    triton: float
    launch: float
    pdl: float | None


# Source: NVIDIA's data sheets (H100 SXM: 3.35 TB/s, 990 dense bf16 TFLOP/s; A100 SXM 80 GB: 2.04 TB/s, 312 TFLOP/s).
H100 = Device("H100", "sm_90", 0.85 * 3.35e6, 5.5e6, 0.70 * 990e6, 0.58 * 990e6, 1.5, 0.4)
A100 = Device("A100", "sm_80", 0.85 * 2.04e6, 3.5e6, 0.70 * 312e6, 0.58 * 312e6, 1.5, None)
DEVICES = (H100, A100)


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer in one step: T tokens, N by K weights, R live ranks, all in one mix."""

    tokens: int
    n: int
    k: int
    ranks: int


def predicted_us(device: Device, path: Path, layer: Layer) -> float:
    """Microseconds of one layer by `path`, launches included.

    Raises:
        ValueError: `path` is none of a GPU's.
    """
    t, n, k, r = layer.tokens, layer.n, layer.k, layer.ranks
    if path in (Path.BASE, Path.MERGED):
        return _product(device, t, n, k, device.library)
    if path is Path.PAIR:
        # The pages ride in the same loop; what is left of K1 shows only where W streams for a shorter time.
        stream = _product(device, t, n, k + r, device.triton) - device.launch
        planes = _planes(device, layer, gemm_expand_blocks(device.arch, block_m(t, BYTES), BYTES, BYTES).n)
        shrink = _shrink(device, layer)
        if device.pdl is None:
            return 2 * device.launch + shrink + stream + planes
        return device.launch + device.pdl + max(shrink, stream) + planes
    if path is Path.TAIL:
        copies = 2 * device.launch + (2 * t * k + 3 * t * r) * BYTES / device.hbm  # x' = [x|u]
        return device.launch + _shrink(device, layer) + copies + _product(device, t, n, k + r, device.library)
    if path is Path.ADD:
        planes = _planes(device, layer, expand_add_blocks(device.arch, block_m(t, BYTES), BYTES).n)
        second = device.launch if device.pdl is None else device.pdl
        expand = max((2 * t * n + r * n) * BYTES / device.hbm, 2 * t * n * r / device.triton)
        return (
            predicted_us(device, Path.BASE, layer) + device.launch + _shrink(device, layer) + second + expand + planes
        )
    raise ValueError(f"no prediction for {path!r}; expected a GPU's path")


def overhead(device: Device, path: Path, layer: Layer) -> float:
    """What adapters add to the base product, as a part of it."""
    return predicted_us(device, path, layer) / predicted_us(device, Path.BASE, layer) - 1


def rivals_us(device: Device, layer: Layer, adapters: int) -> dict[str, float]:
    """Microseconds of what others do: a loop over adapters, and shrink, product and expand as three launches."""
    t, n, k, r = layer.tokens, layer.n, layer.k, layer.ranks
    base = predicted_us(device, Path.BASE, layer)
    each = r / adapters
    expand = max((2 * t * n + each * n) * BYTES / device.hbm, 2 * t * n * each / device.library)
    shrink = max((t * k + each * k) * BYTES / device.hbm, 2 * t * k * each / device.library)
    scale_and_add = 4 * t * n * BYTES / device.hbm
    loop = adapters * (4 * device.launch + shrink + expand + scale_and_add)
    three = (
        2 * device.launch
        + _shrink(device, layer)
        + max((2 * t * n + r * n) * BYTES / device.hbm, 2 * t * n * r / device.triton)
    )
    return {"loop over adapters": base + loop, "shrink, product, expand": base + three}


def _product(device: Device, t: int, n: int, k: int, flops: float) -> float:
    return device.launch + max((n * k + t * k + t * n) * BYTES / device.hbm, 2 * t * n * k / flops)


def _shrink(device: Device, layer: Layer) -> float:
    """K1 without its launch: one program's own stream where there are few, else the device's."""
    t, k, r = layer.tokens, layer.k, layer.ranks
    b = shrink_blocks(device.arch, block_m(t, BYTES), k, BYTES)
    programs = cdiv(t, b.m) * cdiv(r, b.r) * b.split
    per_program = (b.m + b.r) * cdiv(k, b.split) * BYTES
    in_flight = (b.m + b.r) * b.k * BYTES * (b.stages - 1)
    alone = per_program / (in_flight / 0.8)  # a trip to memory takes about 0.8 us
    once = (t + r) * k * BYTES / device.hbm
    together = max(once, programs * per_program / device.l2, 2 * t * k * r / device.triton)
    return max(alone, together)


def _planes(device: Device, layer: Layer, block_n: int) -> float:
    """Reading u's planes: every program along N reads those of its tokens from L2."""
    tile = block_m(layer.tokens, BYTES)
    split = shrink_blocks(device.arch, tile, layer.k, BYTES).split
    return split * layer.tokens * layer.ranks * 4 * cdiv(layer.n, block_n) / device.l2


def main() -> None:
    """Prints the predicted overheads."""
    print("Adapters' overhead over the base product, predicted, not measured (bf16, K = N = 4096, 4 adapters, one mix)")
    for device in DEVICES:
        print(f"\n{device.name:5}  tokens  ranks  path    base us  ours      three launches   PEFT's loop")
        for tokens in (1, 16, 64, 256, 512, 2048, 8192):
            for ranks in (64, 128, 256):
                layer = Layer(tokens, 4096, 4096, ranks)
                pdl = device.pdl is not None
                path = choose(tokens=tokens, pages=cdiv(ranks, PAGE), gpu=True, pdl=pdl, tail=TAIL_PAGES)
                base = predicted_us(device, Path.BASE, layer)
                rivals = {name: us / base - 1 for name, us in rivals_us(device, layer, 4).items()}
                print(
                    f"{'':5}  {tokens:6}  {ranks:5}  {path.name:6}  {base:7.1f}  {overhead(device, path, layer):6.1%}  "
                    f"{rivals['shrink, product, expand']:12.1%}  {rivals['loop over adapters']:16.1%}"
                )


if __name__ == "__main__":
    main()
