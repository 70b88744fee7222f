"""What each path should cost on a GPU: arithmetic from data sheets. Predicted, not measured. Pure floats, no torch.

    python runtime/bench/roofline.py

prints the overhead of adapters over the base product for the paths that the dispatch table chooses: once for steps in
which every token has an adapter, once for steps with base rows. `bench_gpu.py` measures the same on a GPU.
"""

from dataclasses import dataclass

from kaito_runtime.kernels.dispatch import Base, Path, choose
from kaito_runtime.kernels.launch import PAGE, block_t, cdiv, expand_add_blocks, gemm_expand_blocks, shrink_blocks

__all__ = ["A100", "DEVICES", "H100", "Device", "Layer", "chosen", "main", "overhead", "predicted_us", "rivals_us"]

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
    """One linear layer in one step: T tokens, N by K weights, R ranks, live on every tile."""

    tokens: int
    n: int
    k: int
    ranks: int


def predicted_us(device: Device, path: Path, layer: Layer) -> float:
    """Returns the microseconds of one layer by `path`, launches included."""
    t, n, k, r = layer.tokens, layer.n, layer.k, layer.ranks
    if path is Path.BASE:
        return _product(device, t, n, k, device.library)
    if path is Path.PAIR:
        # The pages are in the same loop; shrink shows only where it takes longer than the stream of W.
        stream = _product(device, t, n, k + r, device.triton) - device.launch
        planes = _planes(device, layer, gemm_expand_blocks(device.arch, block_t(t, BYTES), BYTES, BYTES).n)
        shrink = _shrink(device, layer)
        if device.pdl is None:
            return 2 * device.launch + shrink + stream + planes
        return device.launch + device.pdl + max(shrink, stream) + planes
    planes = _planes(device, layer, expand_add_blocks(device.arch, block_t(t, BYTES), BYTES).n)
    second = device.launch if device.pdl is None else device.pdl
    expand = max((2 * t * n + r * n) * BYTES / device.hbm, 2 * t * n * r / device.triton)
    return predicted_us(device, Path.BASE, layer) + device.launch + _shrink(device, layer) + second + expand + planes


def overhead(device: Device, path: Path, layer: Layer) -> float:
    """Returns what adapters add to the base product, as a fraction of it."""
    return predicted_us(device, path, layer) / predicted_us(device, Path.BASE, layer) - 1


def rivals_us(device: Device, layer: Layer, adapters: int) -> dict[str, float]:
    """Returns the microseconds of a loop over adapters, and of shrink, product and expand as three launches."""
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
    """Returns the microseconds of shrink without its launch: one program alone, or all that share the device."""
    t, k, r = layer.tokens, layer.k, layer.ranks
    b = shrink_blocks(device.arch, block_t(t, BYTES), k, BYTES)
    programs = cdiv(t, b.t) * cdiv(r, b.r) * b.split
    per_program = (b.t + b.r) * cdiv(k, b.split) * BYTES
    in_flight = (b.t + b.r) * b.k * BYTES * (b.stages - 1)
    alone = per_program / (in_flight / 0.8)  # a trip to memory takes about 0.8 us
    once = (t + r) * k * BYTES / device.hbm
    together = max(once, programs * per_program / device.l2, 2 * t * k * r / device.triton)
    return max(alone, together)


def _planes(device: Device, layer: Layer, block_n: int) -> float:
    """Returns the microseconds of reading u: every program along N reads the planes of its tokens from L2."""
    tile = block_t(layer.tokens, BYTES)
    split = shrink_blocks(device.arch, tile, layer.k, BYTES).split
    return split * layer.tokens * layer.ranks * 4 * cdiv(layer.n, block_n) / device.l2


def main() -> None:
    """Prints the predicted overheads."""
    print("Adapters' overhead over the base product, predicted, not measured (bf16, K = N = 4096, 4 adapters)")
    for device in DEVICES:
        print(f"\n{device.name:5}  tokens  ranks  base us  all rows adapted   some rows  three launches   PEFT's loop")
        for tokens in (1, 16, 64, 256, 512, 2048, 8192):
            for ranks in (64, 128, 256):
                layer = Layer(tokens, 4096, 4096, ranks)
                base = predicted_us(device, Path.BASE, layer)
                rivals = {name: us / base - 1 for name, us in rivals_us(device, layer, 4).items()}
                ours = {all_live: chosen(device, layer, all_live=all_live) for all_live in (True, False)}
                print(
                    f"{'':5}  {tokens:6}  {ranks:5}  {base:7.1f}  "
                    f"{ours[True].name:>9}{overhead(device, ours[True], layer):8.1%}  "
                    f"{ours[False].name:>6}{overhead(device, ours[False], layer):8.1%}  "
                    f"{rivals['shrink, product, expand']:14.1%}  {rivals['loop over adapters']:12.1%}"
                )


def chosen(device: Device, layer: Layer, *, all_live: bool) -> Path:
    """Returns the path that the dispatch table chooses for a dense layer."""
    pages, pdl = cdiv(layer.ranks, PAGE), device.pdl is not None
    return choose(tokens=layer.tokens, pages=pages, all_live=all_live, pdl=pdl, base=Base.DENSE, k=layer.k, n=layer.n)


if __name__ == "__main__":
    main()
