"""Tiny random models, adapters for them, and the truth: merged weights in fp64."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kaito_runtime.lora.inject import LoraModel, inject_lora
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights, LoraMatrix
from kaito_runtime.lora.targets import linear_shape


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes | changes)).eval()


def falcon() -> FalconForCausalLM:
    torch.manual_seed(0)
    return FalconForCausalLM(
        FalconConfig(vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, bias=True)
    ).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=48, n_layer=2, n_head=4, n_positions=64)).eval()


TARGETS = {
    llama: ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    falcon: ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    gpt2: ("c_attn", "c_proj", "c_fc"),
}


def target_paths(model: nn.Module, suffixes: tuple[str, ...]) -> list[str]:
    return [path for path, m in model.named_modules() if linear_shape(m) and path.endswith(suffixes)]


def weights(
    model: nn.Module, paths: list[str], *, rank: int = 8, seed: int = 1, scaling: float = 2.0
) -> AdapterWeights:
    """An adapter on `paths` whose part is as large as the base model's."""
    generator = torch.Generator().manual_seed(seed)
    matrices = {}
    for path in paths:
        k, n = linear_shape(model.get_submodule(path)) or (0, 0)
        a = torch.randn(rank, k, generator=generator) * 0.1
        b = torch.randn(n, rank, generator=generator) * 0.1
        matrices[path] = LoraMatrix(a, b, scaling)
    return AdapterWeights(f"adapter-{seed}", f"sha256:{seed}", matrices)


def merged(model: nn.Module, parts: list[tuple[AdapterWeights, float]]) -> nn.Module:
    """A copy in fp64 whose weights are W + sum_i s_i * scaling_i * B_i A_i."""
    result = copy.deepcopy(model).double()
    for adapter, strength in parts:
        for path, matrix in adapter.matrices.items():
            weight = result.get_submodule(path).weight.data
            delta = strength * matrix.scaling * (matrix.b.double() @ matrix.a.double())
            weight += delta if delta.shape == weight.shape and "c_" not in path else delta.t()
    return result


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def injected(
    make: Callable[[], Any], *adapters: AdapterWeights, **options: Any
) -> tuple[Any, Any, LoraModel, list[AdapterVersion]]:
    """A base model, the same with LoRA layers, and the adapters loaded into it."""
    model = make()
    ours = copy.deepcopy(model)
    lora = inject_lora(ours, **options)
    return model, ours, lora, [lora.bank.load(a) for a in adapters]
