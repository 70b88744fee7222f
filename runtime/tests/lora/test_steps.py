"""What layers read of a step: lists per tile of tokens, one table per set of scalings, addresses that stay."""

import pytest
import torch
from lora_models import TARGETS, llama, target_paths, weights

from kaito_runtime.kernels.dispatch import Base
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.targets import base_of


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


@pytest.mark.parametrize("paged", [True, False])
def test_a_step_is_kept_as_long_as_nothing_changes(paged):
    model = llama()
    lora = inject_lora(model, paged=paged)
    paths = target_paths(model, TARGETS[llama])
    one, two = (lora.bank.load(weights(llama(), paths, seed=seed)) for seed in (1, 2))
    strengths = {one: 0.5, two: 1.0}

    def step(spans):
        lora.routing.set(spans)
        return lora.routing.step

    first = step([(8, strengths)])
    assert step([(8, dict(strengths))]) is first and step([(8, strengths), (0, {one: 9.0})]) is first
    strengths[one] = 0.75
    assert (second := step([(8, strengths)])) is not first, "a strength changed in place"
    assert step([(7, strengths), (1, {})]) is not second, "other tokens"
    third = step([(8, strengths)])
    lora.bank.load(weights(llama(), paths, seed=3))
    assert (fourth := step([(8, strengths)])) is not third, "what is resident changed"
    lora.bank.retire(two)
    with pytest.raises(KeyError, match="is not resident"):
        lora.routing.set([(8, strengths)])
    assert lora.routing.step is fourth, "what is refused changes nothing"
    lora.routing.clear()
    assert lora.routing.step is None and step([(8, {one: 0.75})]) is not None


def test_a_layer_is_planned_once_per_step():
    model = llama()
    lora = inject_lora(model, paged=False)
    version = lora.bank.load(weights(llama(), target_paths(model, ("q_proj",)), seed=1))
    ids = torch.arange(6)[None]
    lora.routing.set([(6, {version: 1.0})])
    with torch.inference_mode():
        first = model(input_ids=ids).logits
        planned = dict(lora.routing.step.parts)
        lora.routing.set([(6, {version: 1.0})])
        assert torch.equal(model(input_ids=ids).logits, first)
    assert set(planned) == {layer.pool for layer in lora.layers.values()}
    assert [path for path, layer in lora.layers.items() if planned[layer.pool]] == target_paths(model, ("q_proj",))
    assert all(lora.routing.step.parts[pool] is parts for pool, parts in planned.items())


class Narrow(torch.nn.Linear):
    """What a quantised layer looks like: a narrow weight and one factor per row."""

    def __init__(self, dtype):
        super().__init__(8, 4, bias=False)
        self.weight = torch.nn.Parameter(torch.ones(4, 8).to(dtype), requires_grad=False)
        self.weight_scale = torch.full((4,), 0.5)

    def forward(self, input):
        return input @ (self.weight.float() * self.weight_scale[:, None]).t()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_row_scaled_weights_are_multiplied_by_the_kernel(dtype):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), Narrow(dtype))
    assert [base_of(layer) for layer in model] == [Base.DENSE, Base.ROW_SCALED]
    lora = inject_lora(model, paged=True)
    part = weights(model, ["1"], rank=4)
    version = lora.bank.load(part)
    lora.routing.set([(3, {version: 2.0})])
    x, matrix = torch.randn(3, 8), part.matrices["1"]
    with torch.no_grad():
        want = x.sum(1, keepdim=True) * 0.5 + 2.0 * matrix.scaling * (x @ matrix.a.t()) @ matrix.b.t()
        torch.testing.assert_close(model[1](x), want)


def test_what_only_the_layer_can_multiply_is_opaque():
    wrong_scale = Narrow(torch.int8)
    wrong_scale.weight_scale = torch.ones(2, 2)
    assert base_of(wrong_scale) is Base.OPAQUE
    assert base_of(type("Other", (torch.nn.Linear,), {})(8, 4)) is Base.OPAQUE
