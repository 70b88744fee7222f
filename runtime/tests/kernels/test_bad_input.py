"""Every mismatch is a ValueError that names both sides, before anything is launched. No driver is needed for that."""

from dataclasses import replace

import pytest
import torch
from kernel_cases import make_case

from kaito_runtime.kernels import gemm_expand as gemm_expand_module
from kaito_runtime.kernels.device import Target
from kaito_runtime.kernels.expand_add import expand_add_
from kaito_runtime.kernels.gemm_expand import gemm_expand
from kaito_runtime.kernels.shrink import shrink


@pytest.fixture
def good():
    case = make_case(ranks=[8, 24], spans=[(3, {0: 1.0, 1: 0.5})], k=48, n=32)
    return {
        "x": case.x, "w": case.w, "a_pool": case.a_pool, "b_pool": case.b_pool, "s": case.s, "tiles": case.tiles,
        "u": torch.zeros(2, 3, case.tiles.width * 16), "y": torch.zeros(3, 32), "bias": torch.zeros(32),
        "w_scale": torch.zeros(32),
    }  # fmt: skip


CALLS = {
    "shrink": lambda g: shrink(g["x"], g["a_pool"], g["s"], g["tiles"]),
    "gemm": lambda g: gemm_expand(g["x"], g["w"], g["u"], g["b_pool"], g["tiles"], bias=g["bias"]),
    "narrow": lambda g: gemm_expand(
        g["x"], g["w"].to(torch.int8), g["u"], g["b_pool"], g["tiles"], w_scale=g["w_scale"]
    ),
    "add": lambda g: expand_add_(g["y"], g["u"], g["b_pool"], g["tiles"]),
}


def tiles_with(**changes):
    return lambda g: {"tiles": replace(g["tiles"], **changes)}


def other(name, tensor):
    return lambda g: {name: tensor}


@pytest.mark.parametrize(
    ("call", "change", "words"),
    [
        ("shrink", other("x", torch.zeros(3, 40)), r"a_pool has shape \[96, 48\], expected \[96, 40\].*\[3, 40\]"),
        ("shrink", other("x", torch.zeros(48)), r"x has shape \[48\], expected \[tokens, K\]"),
        ("shrink", other("x", torch.zeros(48, 3).t()), r"x has strides \[1, 3\], expected contiguous"),
        ("shrink", other("x", torch.zeros(3, 48, dtype=torch.float64)), r"x has dtype torch.float64, expected"),
        ("shrink", other("x", torch.zeros(3, 48).half()), r"a_pool has dtype torch.float32, expected torch.float16"),
        ("shrink", other("x", torch.zeros(3, 48, device="meta")), r"a_pool is on cpu, but x is on meta"),
        ("shrink", other("a_pool", torch.zeros(40, 48)), r"a_pool has shape \[40, 48\], expected \[pages \* 16, 48\]"),
        ("shrink", other("s", torch.zeros(4, 2)), r"s has shape \[4, 2\], expected \[3, 2\]"),
        ("shrink", other("s", torch.zeros(3, 2).double()), r"s has dtype torch.float64, expected torch.float32"),
        ("shrink", other("s", torch.zeros(3)), r"s has shape \[3\], expected"),
        ("shrink", tiles_with(start=torch.zeros(5, dtype=torch.int32)), r"start has shape \[5\].*need \[2\]"),
        (
            "shrink",
            tiles_with(pages=torch.zeros(9, dtype=torch.int32)),
            r"pages has shape \[9\], but tiles.adapters has \[3\]",
        ),
        (
            "shrink",
            tiles_with(adapters=torch.zeros(3)),
            r"tiles.adapters has dtype torch.float32, expected torch.int32",
        ),
        ("add", tiles_with(live=torch.ones(4, dtype=torch.int32)), r"tiles.live has shape \[4\], expected \[3\]"),
        ("add", tiles_with(live=torch.ones(3).bool()), r"tiles.live has dtype torch.bool, expected torch.int32"),
        ("gemm", other("w", torch.zeros(32, 40)), r"w has shape \[32, 40\], expected \[N, 48\]"),
        ("gemm", other("w", torch.zeros(48, 32).t()), r"w has strides \[1, 32\], expected \[48 or more, 1\]"),
        ("gemm", other("w", torch.zeros(32, 48).to(torch.int8)), r"w has dtype torch.int8, expected torch.float32"),
        ("gemm", other("u", torch.zeros(2, 3, 16)), r"u has shape \[2, 3, 16\], expected \[2, 3, 48\]"),
        ("gemm", other("u", torch.zeros(3, 48)), r"u has shape \[3, 48\], expected \[planes, 3, 48\]"),
        ("gemm", other("b_pool", torch.zeros(8, 30, 16)), r"b_pool has shape \[8, 30, 16\], expected \[8, 32, 16\]"),
        ("gemm", other("b_pool", torch.zeros(8, 32)), r"b_pool has shape \[8, 32\], expected \[pages, 32, 16\]"),
        ("gemm", other("bias", torch.zeros(31)), r"bias has shape \[31\], expected \[32\]"),
        ("gemm", other("bias", torch.zeros(32).half()), r"bias has dtype torch.float16, expected torch.float32"),
        ("narrow", other("w_scale", torch.zeros(1)), r"w_scale has shape \[1\], expected \[32\]"),
        (
            "narrow",
            other("w_scale", torch.zeros(32).half()),
            r"w_scale has dtype torch.float16, expected torch.float32",
        ),
        ("add", other("y", torch.zeros(4, 32)), r"u has shape \[2, 3, 48\], expected \[2, 4, 48\]"),
        ("add", other("y", torch.zeros(3, 32).half()), r"b_pool has dtype torch.float32, expected torch.float16"),
        ("add", other("y", torch.zeros(32)), r"y has shape \[32\], expected \[tokens, N\]"),
    ],
)
def test_both_sides_are_named(good, call, change, words):
    with pytest.raises(ValueError, match=words):
        CALLS[call](good | change(good))


def test_fp8_weights_are_refused_where_the_hardware_has_none(good, monkeypatch):
    monkeypatch.setattr(gemm_expand_module, "current_target", lambda: Target("sm_80", pdl=False, interpret=False))
    w = good["w"].to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"w has dtype torch.float8_e4m3fn, which sm_80 cannot multiply; sm_90 can"):
        gemm_expand(good["x"], w, good["u"], good["b_pool"], good["tiles"], w_scale=good["w_scale"])
