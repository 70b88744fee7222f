"""Recipe: what a preset package tells the runtime about its models. Finding recipes is `recipes`' business.

A package offers recipes from the module that its entry point in the group `kaito_runtime` names, in a function
`kaito_runtime_recipes()` that takes nothing and returns them. The module is imported by the runtime alone, so it may
import torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from kaito_runtime.lora.sharded import Shard

__all__ = ["DEFAULT_RECIPE", "RECIPE_GROUP", "RECIPE_HOOK", "Recipe"]

RECIPE_GROUP = "kaito_runtime"
RECIPE_HOOK = "kaito_runtime_recipes"


def _leave_alone(model: nn.Module) -> None:
    """Prepares what transformers loads as it is: nothing to do."""


def _class_plan(config: Any) -> Mapping[str, str]:
    """Adds nothing to the tensor parallel plan of the model's own class."""
    return {}


def _cut_nothing(model: nn.Module, rank: int, ranks: int) -> Mapping[str, Shard]:
    """Cuts no layer that a plan can cut."""
    return {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a loaded model servable.

    Attributes:
        name: What a ServingConfig calls it, unique across packages.
        architectures: Class names, as in the `architectures` of a model's config.json, that it is for. A model
            whose class is among them is prepared by this recipe also where the ServingConfig says "default".
        prepare: Called once with the loaded model (evaluation mode, weights in their final dtype, before LoRA
            layers are put in place). It changes the model where continuous batching or LoRA needs it, in place.
        lora_exclude: Last parts of module paths that no adapter may target.
        tp_plan: Called with the model's config; returns rules that are added to the tensor parallel plan of the model's
            class, in transformers' form: a style by module path, "*" standing for layer numbers.
        cut: Called after `prepare` where several processes share the model, with this one's rank and their number;
            returns what it took of layers that no plan can cut, by path. Weights are loaded whole, it says which part
            stays, and changes what its modules count by (heads).
    """

    name: str
    architectures: tuple[str, ...] = ()
    prepare: Callable[[nn.Module], None] = field(default=_leave_alone)
    lora_exclude: tuple[str, ...] = ("lm_head",)
    tp_plan: Callable[[Any], Mapping[str, str]] = field(default=_class_plan)
    cut: Callable[[nn.Module, int, int], Mapping[str, Shard]] = field(default=_cut_nothing)


DEFAULT_RECIPE = Recipe(name="default")
