"""Paged attention, run by Triton's interpreter, against fp64 truth. Run this folder in its own process."""

import pytest
import torch

from kaito_runtime.kernels.paged_attention import paged_attention, paged_attention_reference

LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 200)
BLOCK = 16


def make(lengths=LENGTHS, *, heads=6, groups=2, width=24, of_values=24, dtype=torch.float32, block=BLOCK):
    """Returns the arguments; blocks are scattered, and what no sequence holds is no number."""
    generator = torch.Generator().manual_seed(0)
    counts = [-(-length // block) for length in lengths]
    free = torch.randperm(2 * sum(counts), generator=generator).tolist()
    table = torch.full((len(lengths), max(counts)), 10**6, dtype=torch.int32)  # beyond a sequence's blocks: no address
    parts = [torch.full((len(free) * block, groups, w), torch.nan, dtype=dtype) for w in (width, of_values)]
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        own, free = free[:count], free[count:]
        table[row, :count] = torch.tensor(own)
        cells = [own[i // block] * block + i % block for i in range(length)]
        for part in parts:
            part[cells] = torch.randn(length, groups, part.shape[2], generator=generator).to(dtype)
    query = torch.randn(len(lengths), heads, width, generator=generator).to(dtype)
    return query, *parts, table, torch.tensor(lengths, dtype=torch.int32)


def error(arguments, **options):
    options = {"block_tokens": BLOCK, "scale": 0.2, **options}
    truth = paged_attention_reference(
        *(part.double() for part in arguments[:3]), *arguments[3:], **{k: v for k, v in options.items() if k != "split"}
    )
    found = paged_attention(*arguments, **options)
    assert found.dtype == arguments[0].dtype
    return float((found.double() - truth).abs().max() / truth.abs().max())


def test_the_reference_is_torchs_own_attention():
    """Plain, and with a window; bounded scores and sinks are compared in the engine's tests of its CPU path."""
    query, keys, values, table, lengths = make()
    doubles = [part.double() for part in (query, keys, values)]
    for window in (0, 5, 1000):
        options = {"block_tokens": BLOCK, "scale": 0.2, "window": window}
        found = paged_attention_reference(*doubles, table, lengths, **options)
        for row, length in enumerate(lengths.tolist()):
            first = max(0, length - window) if window else 0
            cells = [int(table[row, i // BLOCK]) * BLOCK + i % BLOCK for i in range(first, length)]
            k, v = (part[cells].double().transpose(0, 1)[None] for part in (keys, values))
            truth = torch.nn.functional.scaled_dot_product_attention(
                query[row].double()[None, :, None], k, v, scale=0.2, enable_gqa=True
            )
            torch.testing.assert_close(found[row], truth[0, :, 0])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (8, 1), (9, 3)])
def test_grouped_heads_and_ragged_lengths(dtype, heads, groups):
    assert error(make(heads=heads, groups=groups, dtype=dtype)) <= LIMITS[dtype]


@pytest.mark.parametrize("split", [1, 2, 8])
def test_any_number_of_parts(split):
    """Short sequences leave parts without a key."""
    assert error(make(), split=split) <= 2e-6


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 64, 1000])
def test_windows_around_the_edges_of_blocks(window):
    assert error(make(), window=window, split=2) <= 2e-6


@pytest.mark.parametrize("softcap", [0.5, 30.0])
def test_bounded_scores(softcap):
    assert error(make(), softcap=softcap, scale=50.0) <= 2e-6


def test_sinks():
    assert error(make(), sinks=torch.linspace(-3, 3, 6), split=4) <= 2e-6


def test_everything_at_once():
    options = {"sinks": torch.linspace(-3, 3, 6), "softcap": 2.0, "window": 20, "split": 2}
    assert error(make(width=40, of_values=8), **options) <= 2e-6


@pytest.mark.parametrize("block", [1, 8, 64])
def test_sizes_of_blocks(block):
    assert error(make(block=block), block_tokens=block) <= 2e-6


def test_one_key_is_its_value():
    query, keys, values, table, lengths = make([1])
    found = paged_attention(query, keys, values, table, lengths, block_tokens=BLOCK, scale=1.0)
    cell = int(table[0, 0]) * BLOCK
    torch.testing.assert_close(found[0], values[cell].repeat_interleave(3, 0))
