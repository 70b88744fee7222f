"""Packed attention against attention of each request on its own, in float64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kaito_runtime.engine.attention import NAME, packed_attention, plan_attention
from kaito_runtime.engine.batching import Batcher
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.testing.models import load_fp32

HEADS, GROUPS, WIDTH = 6, 2, 8
SPANS = {
    "prompts from their start": [(5, 5), (3, 3)],
    "a prompt that goes on": [(4, 11)],
    "answers of equal length": [(1, 7), (1, 7)],
    "answers of very different lengths": [(1, 1), (1, 2), (1, 3), (1, 40), (1, 33), (1, 64)],
    "everything at once": [(1, 9), (6, 6), (1, 12), (2, 30), (1, 9)],
}


def attend(spans: list[tuple[int, int]], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attends with all keys but the newest in the cache, in cells that lie in no order, among others of no number."""
    ends = torch.tensor([keys for _, keys in spans]).cumsum(0).tolist()
    new = torch.cat([torch.arange(end - queries, end) for (queries, _), end in zip(spans, ends, strict=True)])
    cells = torch.randperm(3 * key.shape[2], generator=torch.Generator().manual_seed(1))[: key.shape[2]]
    held = []
    for part in (key, value):
        memory = torch.full((3 * part.shape[2], GROUPS, WIDTH), torch.nan, dtype=part.dtype)
        memory[cells] = part[0].transpose(0, 1)
        memory[cells[new]] = torch.nan
        held.append(memory)
    plan = plan_attention(spans, cells, cells[new], {7: (held[0], held[1])})
    module, cache = SimpleNamespace(layer_idx=7), SimpleNamespace(plan=plan)
    out = packed_attention(module, query, key[:, :, new], value[:, :, new], None, scaling=0.3, cache=cache)[0]
    for part, memory in zip((key, value), held, strict=True):
        torch.testing.assert_close(memory[cells], part[0].transpose(0, 1), msg="the new keys were not kept")
    return out


def alone(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[H, Tq, D] queries, whose own keys are the last of [Hkv, Tk, D]."""
    key, value = (part.repeat_interleave(HEADS // GROUPS, dim=0) for part in (key, value))
    scores = 0.3 * query @ key.transpose(1, 2)
    queries, keys = scores.shape[1:]
    later = torch.arange(keys)[None] > torch.arange(keys - queries, keys)[:, None]
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ value


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_each_request_sees_its_own_keys_up_to_its_own_place(spans: list[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    total_q, total_k = (sum(column) for column in zip(*spans, strict=True))
    query = torch.randn(1, HEADS, total_q, WIDTH, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 1, GROUPS, total_k, WIDTH, generator=generator, dtype=torch.float64)
    found = attend(spans, query, key, value)[0].transpose(0, 1)
    q = k = 0
    for queries, keys in spans:
        rows = slice(q, q + queries)
        truth = alone(query[0, :, rows], key[0, :, k : k + keys], value[0, :, k : k + keys])
        torch.testing.assert_close(found[:, rows], truth)
        q, k = q + queries, k + keys


def test_padding_at_most_doubles_the_keys_that_are_read() -> None:
    lengths = [10 + i % 3 for i in range(100)] + [1000]
    cells, layer = torch.arange(sum(lengths)), torch.zeros(0, GROUPS, WIDTH)
    plan = plan_attention([(1, length) for length in lengths], cells, cells[: len(lengths)], {0: (layer, layer)})
    assert sum(len(decode.cells) for decode in plan.decodes) < 2 * sum(lengths)
    assert sum(decode.batch for decode in plan.decodes) == len(lengths)


@pytest.mark.parametrize("field", ["softcap", "s_aux", "position_bias"])
def test_what_it_does_not_do_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        none: Any = torch.zeros(1, 1, 1, 1)
        packed_attention(SimpleNamespace(), none, none, none, None, cache=None, dropout=0.0, **{field: 1})


def test_models_with_plain_attention_get_it_and_others_keep_theirs(tiny_llama: Any) -> None:
    limits = BatchLimits(cache_tokens=64, page_tokens=8, step_tokens=16, requests=4)
    plain, eager = load_fp32(tiny_llama), load_fp32(tiny_llama)
    eager.set_attn_implementation("eager")
    for model in (plain, eager):
        Batcher(model, limits)
    assert plain.config._attn_implementation == NAME
    assert eager.config._attn_implementation == "paged|eager"
