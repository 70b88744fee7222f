"""What the kernels read of a step: lists per tile of tokens, one table per set of scalings, addresses that stay."""

import pytest
import torch
from lora_models import TARGETS, llama, target_paths, weights

from kaito_runtime.lora.inject import inject_lora


@pytest.fixture
def served():
    model = llama()
    lora = inject_lora(model, paged=True, max_pages=16)
    paths = target_paths(model, TARGETS[llama])
    versions = [lora.bank.load(weights(llama(), paths, rank=r, seed=r, scaling=2.0)) for r in (8, 40, 16)]
    return lora, versions, next(iter(lora.layers.values())).scalings


def work(served, spans):
    lora, _, scalings = served
    lora.routing.set(spans)
    return lora.routing.step.work(scalings)


def test_each_tile_lists_the_pages_of_its_own_tokens(served):
    one, two, three = served[1]
    w = work(served, [(60, {one: 0.5}), (70, {two: 1.0}), (64, {}), (30, {three: -1.0})])
    # 224 tokens of fp32 in tiles of 64; pages 0 | 1 2 3 | 4.
    assert (w.tiles.block_t, w.tiles.start.tolist()) == (64, [0, 4, 7, 10, 11])
    assert w.tiles.pages[:11].tolist() == [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4]
    assert w.tiles.adapters[:11].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    assert w.tiles.width == 4 and w.pages == 5 and not w.all_live


def test_strengths_lie_per_token_with_scaling_folded_in(served):
    one, two, _ = served[1]
    w = work(served, [(2, {one: 0.5, two: -1.0}), (1, {}), (1, {two: 10.0})])
    assert w.s.tolist() == [[1.0, -2.0], [1.0, -2.0], [0.0, 0.0], [0.0, 20.0]]


def test_steps_of_one_shape_keep_their_addresses(served):
    one, two, three = served[1]

    def addresses(spans):
        w = work(served, spans)
        return [t.data_ptr() for t in (w.s, w.tiles.start, w.tiles.pages, w.tiles.adapters, w.tiles.live)]

    first = addresses([(8, {one: 0.5})])
    assert addresses([(8, {three: -3.0})]) == first, "another adapter, another strength: the same graph"
    assert addresses([(3, {one: 0.5}), (5, {})]) == first
    assert addresses([(8, {two: 0.5})]) != first, "three pages need a wider grid"
    assert all(address % 16 == 0 for address in first)


def test_a_change_of_strengths_is_one_small_write(served):
    one, two, three = served[1]
    w = work(served, [(8, {one: 0.5, two: 0.1, three: 1.0})])
    whole = w.s.untyped_storage().nbytes()
    assert all(
        t.untyped_storage().data_ptr() == w.s.untyped_storage().data_ptr() for t in (w.tiles.start, w.tiles.pages)
    )
    assert whole < 1024


def test_tables_of_two_sets_of_scalings_do_not_share_memory():
    model = llama()
    lora = inject_lora(model, paged=True)
    everywhere = lora.bank.load(weights(llama(), target_paths(llama(), TARGETS[llama]), seed=1))
    partly = lora.bank.load(weights(llama(), target_paths(llama(), ("q_proj",)), seed=2))
    lora.routing.set([(4, {everywhere: 1.0, partly: 1.0})])
    q, k = (lora.layers[f"model.layers.0.self_attn.{name}_proj"].scalings for name in "qk")
    tables = [lora.routing.step.work(scalings).s for scalings in (q, k)]
    assert tables[0].data_ptr() != tables[1].data_ptr()
    assert [tuple(t.shape) for t in tables] == [(4, 2), (4, 1)]
    assert torch.equal(tables[1], torch.full((4, 1), 2.0))
