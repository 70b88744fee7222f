"""Puts LoRA layers in the places of a model's linear layers and of its input embedding, and adapts its mixtures.

The model is changed in place, weights are shared.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import nn

from kaito_runtime.kernels.common import FLOATING
from kaito_runtime.kernels.packed import can_pack
from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.embedding import LoraEmbedding
from kaito_runtime.lora.experts import ExpertLayer, LoraExperts, LoraRouter
from kaito_runtime.lora.layers import LoraLinear, PackedLinear
from kaito_runtime.lora.pages import DensePool, PagedPool
from kaito_runtime.lora.records import AdaptedLayer
from kaito_runtime.lora.routing import MakeStep, Routing
from kaito_runtime.lora.sharded import Shard, ShardedLoraLinear
from kaito_runtime.lora.step_dense import DenseStep
from kaito_runtime.lora.step_paged import PagedStep, TableMemory
from kaito_runtime.lora.targets import (
    embedding_shape,
    expert_shapes,
    input_embedding,
    linear_shape,
    output_head,
    router_shape,
)

__all__ = ["LoraModel", "inject_lora"]

CPU_PAGES, GPU_PAGES = 256, 32  # by default, for all resident adapters together


@dataclass(frozen=True, slots=True)
class LoraModel:
    """The LoRA half of a model.

    Attributes:
        bank: Loads and unloads adapters.
        routing: Strengths of the next forward pass.
        layers: The replaced layers, by their path in the model.
    """

    bank: Bank
    routing: Routing
    layers: Mapping[str, AdaptedLayer]

    @property
    def page_bytes(self) -> int:
        """Memory of one page of `PAGE` ranks in all layers but experts, in bytes.

        Experts have pages from the first adapter on that targets them: few do, and a page of all experts of a large
        mixture takes gigabytes.
        """
        return sum(layer.page_bytes for layer in set(self.layers.values()) if not isinstance(layer, ExpertLayer))

    def reserve(self, pages: int, *, max_rank: int | None = None) -> None:
        """Takes the memory of the adapter pools, before anything else can have it.

        Args:
            pages: Pages of `PAGE` ranks, for all adapters that are in use at once.
            max_rank: Adapters of a larger rank are refused; None: those that the pages cannot hold.

        Raises:
            ValueError: Adapters are loaded already.
        """
        self.bank.resize(pages)
        self.bank.max_rank = max_rank
        for layer in set(self.layers.values()):
            if isinstance(layer.pool, PagedPool):
                layer.pool.reserve(pages)


def inject_lora(
    model: nn.Module,
    *,
    exclude: Collection[str] = (),
    max_pages: int | None = None,
    pack: bool = False,
    paged: bool | None = None,
    shards: Mapping[str, Shard] | None = None,
    group: dist.ProcessGroup | None = None,
) -> LoraModel:
    """Replaces every linear layer of `model` by a `LoraLinear`, and its input embedding by a `LoraEmbedding`.

    Args:
        model: Changed in place. Without a live adapter it computes what it computed before, bit for bit (with `pack`,
            up to rounding).
        exclude: Layers to leave alone, by path or by the end of their path.
        max_pages: Pages of 16 ranks for all adapters that are in use at once, until `LoraModel.reserve` is called; by
            default 256 on CPUs and 32 on GPUs. A page takes 32 * (K + N) bytes per layer in bf16, 84 MB for a whole
            Llama of 8B.
        pack: On CPUs, keep a packed fp32 copy of each large weight, also of the excluded ones: steps of 4 tokens and
            more take up to a third less time, for twice the memory.
        paged: Use the kernels' page layout; by default if the weights are on a GPU.
        shards: The parts that this rank holds of layers, by path; see `model.tensor_parallel`.
        group: The ranks that hold the parts. Where there is one, embedding, output head and mixtures are left alone.

    Raises:
        ValueError: The model has no linear layer, already has LoRA layers, or is spread over devices by hooks.
    """
    device = next(model.parameters()).device
    dtype = next((p.dtype for p in model.parameters() if p.dtype in FLOATING), torch.float32)
    use_pages = device.type == "cuda" if paged is None else paged
    budget = max_pages or (GPU_PAGES if use_pages else CPU_PAGES)

    def make_steps() -> MakeStep:
        memory = TableMemory(device)
        if use_pages:
            return lambda spans, bank: PagedStep(spans, bank, memory, dtype.itemsize)
        return DenseStep

    def make_pool(shape: tuple[int, int]) -> DensePool | PagedPool:
        return PagedPool(*shape, budget, device, dtype) if use_pages else DensePool(*shape, device)

    layers: dict[str, AdaptedLayer] = {}
    bank = Bank(layers, max_pages=budget)
    # Tables of its own: the head's step is alive beside that of the other layers.
    head_routing, mixture = Routing(bank, make_steps()), Routing(bank, DenseStep)
    routing = Routing(bank, make_steps(), head=head_routing, mixture=mixture if use_pages else None)
    ends = {id(module) for module in (output_head(model), input_embedding(model)) if module is not None}
    head = id(output_head(model))
    others: dict[str, AdaptedLayer] = {}
    replaced: dict[int, nn.Module] = {}  # by id: a layer that two paths lead to stays one layer
    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            raise ValueError(f"'{path}' is a LoraLinear already; inject once per model")
        linear, embedding = linear_shape(module), embedding_shape(module)
        left_alone = _is_excluded(path, exclude) or (group is not None and id(module) in ends)
        if embedding is not None and id(module) in ends and not left_alone:
            replaced[id(module)] = looks_up = LoraEmbedding(cast(nn.Embedding, module), routing, make_pool(embedding))
            others[path] = looks_up
        if not path or linear is None:
            continue
        if left_alone:
            # A forward set on the instance, as by tensor parallelism, reads the weight as it is.
            if pack and type(module) is nn.Linear and "forward" not in vars(module) and can_pack(module.weight):
                replaced[id(module)] = PackedLinear(module)
            continue
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"'{path}' has forward hooks, as offloading installs them; its weight may not be where it is read"
            )
        own, pool = head_routing if id(module) == head else routing, make_pool(linear)
        if shards is not None and group is not None and path in shards:
            layer: LoraLinear = ShardedLoraLinear(module, own, pool, shards[path], group)
        else:
            layer = LoraLinear(module, own, pool)
        layers[path] = replaced[id(module)] = layer
        if pack:
            layer.pack()
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer to adapt")
    layers |= others
    if group is None:
        layers |= _adapt_mixtures(model, mixture if use_pages else routing, exclude)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in replaced:
                parent._modules[name] = replaced[id(child)]
    return LoraModel(bank, routing, layers)


def _is_excluded(path: str, exclude: Collection[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in exclude)


def _adapt_mixtures(model: nn.Module, routing: Routing, exclude: Collection[str]) -> dict[str, AdaptedLayer]:
    """Adapts the experts and routers of a model, in place; returns their layers by the paths of their weights."""
    layers: dict[str, AdaptedLayer] = {}
    for path, module in model.named_modules():
        if _is_excluded(path, exclude):
            continue
        if stacked := expert_shapes(module):
            device = next(module.parameters()).device
            first, down = (ExpertLayer(*shape, device) for shape in stacked.values())
            LoraExperts(module, routing, first, down)
            layers |= {f"{path}.{name}": layer for name, layer in zip(stacked, (first, down), strict=True)}
        elif router_shape(module) is not None:
            layers[path] = LoraRouter(module, routing)
    return layers
