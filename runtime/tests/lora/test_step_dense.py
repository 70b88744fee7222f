"""What the CPU path reads of a step: only ranks that an adapter has, planned once per layer."""

import torch
from lora_models import llama, target_paths, weights

from kaito_runtime.lora.inject import inject_lora


def test_ranks_that_no_adapter_has_are_not_multiplied(model, paths):
    base = llama()
    lora = inject_lora(model)
    versions = [lora.bank.load(weights(base, paths, rank=rank, seed=rank)) for rank in (4, 17, 16)]
    lora.routing.set([(1, dict.fromkeys(versions, 0.5)), (1, {versions[1]: 2.0})])
    layer = next(iter(lora.layers.values()))
    (work,) = lora.routing.step.work(layer.scalings)
    a_t, b_t = layer.pool.live(work.ranks)
    assert (a_t.shape[1], b_t.shape[0], work.s.shape[1]) == (37, 37, 37)
    assert a_t.abs().sum(0).ne(0).all() and b_t.abs().sum(1).ne(0).all()


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
