"""LoRA on the experts of a mixture, as one matrix per stacked weight.

There are two kinds of files. PEFT with transformers 5 adapts the stacked weights themselves (`target_parameters`): A
and B of all experts in one tensor, named after the module, and after a `base_layer` in it for each further weight.
Files of before have A and B for each expert and each of its linear layers, which are halves of a stacked weight since.
Source: peft.tuners.lora.layer.ParamWrapper, peft.utils.transformers_weight_conversion.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kaito_core.api.peft.config import Refuse, rank_and_scaling
from kaito_runtime.formats.tensors import Pair
from kaito_runtime.lora.records import LoraMatrix
from kaito_runtime.lora.targets import expert_shapes, linear_shape, router_shape

__all__ = ["MixtureTensors", "expected_parameters", "expert_matrices", "split_experts"]

SINGLE = re.compile(r"(?P<module>.+\.experts)\.(?P<expert>\d+)\.(?P<layer>gate_proj|up_proj|down_proj|w1|w2|w3)")
# By the name of an expert's layer: the stacked weight, and which half of it.
PARTS = {
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
    "down_proj": ("down_proj", 0),
    "w1": ("gate_up_proj", 0),
    "w3": ("gate_up_proj", 1),
    "w2": ("down_proj", 0),
}
FAMILIES = (("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3"))
# The block's name in Mixtral before transformers 5, and since.
RENAMED = (".block_sparse_moe.", ".mlp.")

Shape = tuple[int, int, int]
"""(E, K, N)."""


@dataclass(slots=True)
class MixtureTensors:
    """The part of a file that is for a model's experts.

    Attributes:
        plain: A and B of all other modules, by the path that they have in the model.
        stacked: A and B of stacked weights, by path.
        single: A and B of one layer of one expert, by the name in the file.
        names: Name of each layer of each expert, as the file would have it: (module, weight, half, expert, K, N). Empty
            where the file has none.
    """

    plain: dict[str, Pair] = field(default_factory=dict)
    stacked: dict[str, Pair] = field(default_factory=dict)
    single: dict[str, Pair] = field(default_factory=dict)
    names: dict[str, tuple[str, str, int, int, int, int]] = field(default_factory=dict)


def split_experts(
    pairs: Mapping[str, Pair], config: Mapping[str, Any], model: nn.Module, refuse: Refuse
) -> MixtureTensors:
    """Tells the experts' matrices from those of other modules.

    Raises:
        AdapterLoadError: There are matrices for experts that cannot be adapted.
    """
    modules = dict(model.named_modules())
    shapes = {path: stacked for path, module in modules.items() if (stacked := expert_shapes(module))}
    found = MixtureTensors()
    spelled: dict[str, str] = {}  # from a module of experts to its name in the file
    for name, pair in pairs.items():
        path = name if name in modules else name.replace(*RENAMED)
        module = re.sub(r"(\.base_layer)+$", "", path)
        match = SINGLE.fullmatch(path)
        if module in shapes:
            depth = path.count(".base_layer", len(module))
            weights = _targeted_weights(module, shapes[module], config)
            if depth >= len(weights):
                raise refuse(
                    f"there are tensors for '{name}', but target_parameters names {len(weights)} weights of these "
                    "experts; make both agree"
                )
            found.stacked[f"{module}.{weights[-1 - depth]}"] = pair
        elif match is not None and match["module"] in shapes:
            found.single[name] = pair
            spelled[match["module"]] = name[: -len(path.removeprefix(match["module"]))]
        elif ".experts." in f"{path}." and path not in modules:
            parent = modules.get(path.rpartition(".experts")[0] + ".experts")
            what = f"there are tensors for '{name}', an expert of a mixture"
            if parent is None:
                raise refuse(f"{what}, but the base model has no such expert; was it trained on another model?")
            raise refuse(
                f"{what}: experts of type {type(parent).__name__} cannot be adapted, only those that transformers "
                "stacks in gate_up_proj and down_proj"
            )
        else:
            found.plain[path] = pair
    layers = [name.rpartition(".")[2] for name in found.single]
    family = next((family for family in FAMILIES if set(family) & set(layers)), ())
    for module, stacked in shapes.items() if family else ():
        found.names |= _names(module, spelled.get(module, module), stacked, family, refuse)
    return found


def _targeted_weights(module: str, shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> list[str]:
    """Returns the stacked weights that `target_parameters` names; in PEFT, the last one's wrapper is outside."""
    targets = config.get("target_parameters") or ()
    return [name for name in shapes if any(f"{module}.{name}".endswith(f".{target}") for target in targets)]


def _names(
    module: str, spelled: str, stacked: Mapping[str, Shape], family: tuple[str, ...], refuse: Refuse
) -> dict[str, tuple[str, str, int, int, int, int]]:
    found = {}
    for layer in family:
        weight, half = PARTS[layer]
        if weight not in stacked:
            raise refuse(f"there are tensors for '{spelled}.0.{layer}', but the experts have no {weight}")
        experts, k, n = stacked[weight]
        for expert in range(experts):
            width = n // 2 if weight == "gate_up_proj" else n
            found[f"{spelled}.{expert}.{layer}"] = (module, weight, half, expert, k, width)
    return found


def expected_parameters(config: Mapping[str, Any], model: nn.Module, refuse: Refuse) -> set[str]:
    """Returns what `target_parameters` names: paths of stacked weights, and of routers and linear layers.

    Raises:
        AdapterLoadError: A parameter is named that cannot be adapted, or none is there.
    """
    targets = config.get("target_parameters") or ()
    found = set()
    for path, module in model.named_modules():
        stacked = expert_shapes(module)
        for name, _ in module.named_parameters(recurse=False):
            key = f"{path}.{name}"
            if not any(key == target or key.endswith(f".{target}") for target in targets):
                continue
            if name in stacked:
                found.add(key)
            elif name == "weight" and (router_shape(module) or linear_shape(module)):
                found.add(path)
            else:
                raise refuse(
                    f"target_parameters includes '{key}' of a {type(module).__name__}; only weights of linear layers, "
                    "routers and stacked experts can be adapted"
                )
    if targets and not found:
        raise refuse(
            f"target_parameters {sorted(targets)} matches no parameter of the base model, in its experts or elsewhere; "
            "was it trained on another model?"
        )
    return found


def expert_matrices(
    tensors: MixtureTensors, config: Mapping[str, Any], model: nn.Module, refuse: Refuse
) -> dict[str, LoraMatrix]:
    """Returns one matrix per stacked weight, A `[r, E*K]` and B `[E*N, r]`.

    Raises:
        AdapterLoadError: Shapes do not fit the model's.
    """
    matrices = {}
    for path, pair in tensors.stacked.items():
        module, _, name = path.rpartition(".")
        shape = expert_shapes(model.get_submodule(module))[name]
        rank, scaling = rank_and_scaling(config, path, refuse)
        matrices[path] = LoraMatrix(*_flat(*_by_expert(path, rank, pair, shape, refuse)), scaling)
    if tensors.single and config.get("use_rslora"):
        raise refuse(
            f"there are tensors for '{next(iter(tensors.single))}', an expert of a mixture, and use_rslora is set: "
            "PEFT computes another scaling for stacked experts than it was trained with; train it without rsLoRA"
        )
    groups: dict[tuple[str, str], dict[tuple[int, int], LoraMatrix]] = {}
    for name, (a, b) in tensors.single.items():
        module, weight, half, expert, k, n = tensors.names[name]
        rank, scaling = rank_and_scaling(config, name, refuse)
        for matrix, tensor, expected in (("A", a, (rank, k)), ("B", b, (n, rank))):
            if tuple(tensor.shape) != expected:
                raise refuse(
                    f"lora_{matrix} of '{name}' has shape {list(tensor.shape)}, but rank {rank} on the base model's "
                    f"[{n}, {k}] layer needs {list(expected)}; was it trained on another model?"
                )
        groups.setdefault((module, weight), {})[expert, half] = LoraMatrix(a, b, scaling)
    for (module, weight), parts in groups.items():
        experts: Any = model.get_submodule(module)
        matrices[f"{module}.{weight}"] = _fold(parts, expert_shapes(experts)[weight], weight, experts.is_concatenated)
    return matrices


def _by_expert(path: str, rank: int, pair: Pair, shape: Shape, refuse: Refuse) -> Pair:
    """Returns A `[E, r, K]` and B `[E, N, r]` of PEFT's A `[E*r, K]` and B `[N, r*E]`."""
    (a, b), (experts, k, n) = pair, shape
    if tuple(a.shape) == (experts * rank, k) and tuple(b.shape) == (n, experts * rank):
        return a.view(experts, rank, k), b.reshape(n, rank, experts).permute(2, 0, 1)
    if tuple(a.shape) == (experts * rank, n) and tuple(b.shape) == (k, experts * rank):
        # PEFT before it knew how transformers stores experts took their weights to be [K, N].
        return b.reshape(k, rank, experts).permute(2, 1, 0), a.view(experts, rank, n).transpose(1, 2)
    raise refuse(
        f"the matrices of the experts '{path}' have shapes {list(a.shape)} and {list(b.shape)}, but rank {rank} on "
        f"{experts} experts of [{n}, {k}] needs {[experts * rank, k]} and {[n, experts * rank]}; was it trained on "
        "another model?"
    )


def _flat(a: Tensor, b: Tensor) -> Pair:
    """Returns A `[r, E*K]` and B `[E*N, r]` of A `[E, r, K]` and B `[E, N, r]`."""
    return a.transpose(0, 1).flatten(1), b.flatten(0, 1)


def _fold(parts: Mapping[tuple[int, int], LoraMatrix], shape: Shape, weight: str, concatenated: bool) -> LoraMatrix:
    """Returns one matrix for the layers of all experts: their ranks side by side, each on its own rows of B."""
    experts, k, n = shape
    halves = 2 if weight == "gate_up_proj" else 1
    ranks = [max((m.a.shape[0] for (_, half), m in parts.items() if half == h), default=0) for h in range(halves)]
    scalings = {matrix.scaling for matrix in parts.values()}
    scaling = scalings.pop() if len(scalings) == 1 else 1.0
    dtype = next(iter(parts.values())).a.dtype if not scalings else torch.float32
    a, b = torch.zeros(experts, sum(ranks), k, dtype=dtype), torch.zeros(experts, n, sum(ranks), dtype=dtype)
    for (expert, half), matrix in parts.items():
        factor = matrix.scaling / scaling if scaling else 1.0
        first = sum(ranks[:half])
        here = slice(first, first + matrix.a.shape[0])
        rows = slice(half * n // 2, (half + 1) * n // 2) if concatenated else slice(half, None, 2)
        a[expert, here] = matrix.a
        b[expert, rows if halves == 2 else slice(None), here] = matrix.b * factor
    return LoraMatrix(*_flat(a, b), scaling)
