"""Putting LoRA layers in place: what is shared, what is left alone, what is refused."""

import pytest
import torch
from lora_models import llama

from kaito_runtime.lora.inject import inject_lora


def test_injection_shares_weights(ids):
    model = llama(tie_word_embeddings=True)
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    lora = inject_lora(model)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == pointers
    assert len(lora.layers) == 16 and {"lm_head", "model.embed_tokens"} <= set(lora.layers)
    with pytest.raises(ValueError, match="inject once"):
        inject_lora(model)


def test_what_is_excluded_is_left_alone():
    model = llama()
    lora = inject_lora(model, exclude=("lm_head", "embed_tokens"))
    assert len(lora.layers) == 14
    assert type(model.lm_head) is torch.nn.Linear and type(model.model.embed_tokens) is torch.nn.Embedding


def test_a_layer_reachable_by_two_paths_stays_one():
    shared = torch.nn.Linear(4, 4)
    model = torch.nn.ModuleDict({"a": shared, "b": torch.nn.Sequential(shared)})
    inject_lora(model)
    assert model["a"] is model["b"][0]


def test_a_model_spread_by_hooks_is_refused():
    model = llama()
    model.model.layers[1].mlp.up_proj.register_forward_pre_hook(lambda module, args: args)
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj' has forward hooks"):
        inject_lora(model)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="no linear layer"):
        inject_lora(torch.nn.Sequential(torch.nn.Embedding(2, 2)))


def test_packing_stores_small_weights_by_columns_and_leaves_the_replaced_layer_alone():
    model = torch.nn.Sequential(torch.nn.Linear(640, 512), torch.nn.Linear(512, 4096))
    small, large = model
    lora = inject_lora(model, pack=True)
    assert lora.layers["0"].weight.stride() == (1, 512)
    assert lora.layers["1"].weight.stride() == (512, 1), "products of large weights are slower by columns"
    assert small.weight.stride() == (640, 1) and torch.equal(small.weight, lora.layers["0"].weight)
    assert lora.layers["1"].weight is large.weight
