"""Packed attention against attention of each request on its own, in float64.

Where there is no GPU, the kernel's reference stands in for it; `kernels/interpret` compares the two.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packed_spans import place
from torch import Tensor

from kaito_runtime.engine.attention import packed_attention
from kaito_runtime.engine.packing import PackedPlan, Upload

HEADS, GROUPS, WIDTH = 6, 2, 8
SPANS = {
    "prompts from their start": [(5, 5), (3, 3)],
    "a prompt that goes on": [(4, 11)],
    "one answer": [(1, 7)],
    "one key": [(1, 1)],
    "a whole block": [(1, 8), (3, 8)],
    "answers of equal length": [(1, 7), (1, 7)],
    "answers of very different lengths": [(1, 1), (1, 2), (1, 3), (1, 40), (1, 33), (1, 64)],
    "everything at once": [(1, 9), (6, 6), (1, 12), (2, 30), (1, 9)],
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"sliding_window": 4},
    "window of one": {"sliding_window": 1},
    "long window": {"sliding_window": 50},
    "softcap": {"softcap": 1.5},
    "sinks": {"s_aux": torch.linspace(-2, 2, HEADS, dtype=torch.float64)},
    "all": {"sliding_window": 4, "softcap": 1.5, "s_aux": torch.linspace(-2, 2, HEADS, dtype=torch.float64)},
}


def attend(
    spans: list[tuple[int, int]], query: Tensor, key: Tensor, value: Tensor, *, where: str, **kind: Any
) -> Tensor:
    """Attends with all keys but the newest in the cache, among others that are no numbers."""
    placed, memory, cells = place(spans, side_by_side=where == "side by side", kernel=where == "by the kernel")
    ends = torch.tensor([keys for _, keys in spans]).cumsum(0).tolist()
    new = torch.cat([torch.arange(end - queries, end) for (queries, _), end in zip(spans, ends, strict=True)])
    held = memory.layer(7, key, value)
    for part, memory_of in zip((key, value), held, strict=True):
        memory_of.fill_(torch.nan)
        memory_of[cells] = part[0].transpose(0, 1)
        memory_of[torch.tensor(cells)[new]] = torch.nan
    plan = PackedPlan(placed, memory, Upload(torch.device("cpu")), torch.float64)
    module = SimpleNamespace(layer_idx=7)
    out = packed_attention(module, query, key[:, :, new], value[:, :, new], None, scaling=0.3, cache=plan, **kind)[0]
    for part, memory_of in zip((key, value), held, strict=True):
        torch.testing.assert_close(memory_of[cells], part[0].transpose(0, 1), msg="the new keys were not kept")
    return out


def alone(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """[H, Tq, D] queries, whose own keys are the last of [Hkv, Tk, D]."""
    key, value = (part.repeat_interleave(HEADS // GROUPS, dim=0) for part in (key, value))
    scores = 0.3 * query @ key.transpose(1, 2)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    queries, keys = scores.shape[1:]
    own = torch.arange(keys - queries, keys)[:, None]
    seen = torch.arange(keys)[None] <= own
    if sliding_window is not None:
        seen &= torch.arange(keys)[None] > own - sliding_window
    scores = scores.masked_fill(~seen, -torch.inf)
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.view(-1, 1, 1).expand(-1, queries, 1)], -1)
    return scores.softmax(-1)[..., :keys] @ value


@pytest.mark.parametrize("where", ["side by side", "scattered", "by the kernel"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_each_request_sees_its_own_keys_up_to_its_own_place(
    spans: list[tuple[int, int]], kind: dict[str, Any], where: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    total_q, total_k = (sum(column) for column in zip(*spans, strict=True))
    query = torch.randn(1, HEADS, total_q, WIDTH, generator=generator, dtype=torch.float64)
    key = torch.randn(1, GROUPS, total_k, WIDTH, generator=generator, dtype=torch.float64)
    value = torch.randn(1, GROUPS, total_k, WIDTH - 2, generator=generator, dtype=torch.float64)
    found = attend(spans, query, key, value, where=where, **kind)[0].transpose(0, 1)
    q = k = 0
    for queries, keys in spans:
        rows = slice(q, q + queries)
        truth = alone(query[0, :, rows], key[0, :, k : k + keys], value[0, :, k : k + keys], **kind)
        torch.testing.assert_close(found[:, rows], truth, atol=1e-6, rtol=1e-5)  # softmax of scores is in float32
        q, k = q + queries, k + keys


@pytest.mark.parametrize("missing", [{"position_bias": 1, "cache": SimpleNamespace()}, {}], ids=["bias", "plan"])
def test_what_it_does_not_do_is_refused(missing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"position_bias|does not pass on"):
        none: Any = torch.zeros(1, 1, 1, 1)
        packed_attention(SimpleNamespace(), none, none, none, None, dropout=0.0, **missing)
