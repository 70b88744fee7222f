"""Strengths of a step: what is refused, and when what was computed for the last step is kept."""

import pytest
import torch
from lora_models import TARGETS, injected, llama, target_paths, weights

from kaito_runtime.lora.inject import inject_lora


def test_a_routed_step_refuses_a_version_that_is_gone(model, paths):
    lora = inject_lora(model)
    version = lora.bank.load(weights(model, paths))
    lora.bank.retire(version)
    with pytest.raises(KeyError, match="not resident; resident: none"):
        lora.routing.set([(1, {version: 1.0})])


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


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_strength_is_refused_at_the_boundary(strength):
    base = llama()
    _, _, lora, (version,) = injected(llama, weights(base, target_paths(base, TARGETS[llama])))
    with pytest.raises(ValueError, match=r"adapter-1.*finite"):
        lora.routing.set([(1, {version: strength})])
    with pytest.raises(ValueError, match="-1"):
        lora.routing.set([(-1, {})])


def test_empty_spans_and_empty_batches():
    base = llama()
    _, _, lora, (version,) = injected(llama, weights(base, target_paths(base, TARGETS[llama])))
    lora.routing.set([])
    assert lora.routing.step is None
    lora.routing.set([(0, {version: 1.0})])
    layer = next(iter(lora.layers.values()))
    assert layer(torch.zeros(1, 0, layer.in_features)).shape == (1, 0, layer.out_features)
