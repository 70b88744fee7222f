"""Recipe: what a preset package tells the runtime about its models. Finding recipes is `recipes`' business.

A package offers recipes from the module that its entry point in the group `kaito_runtime` names, in a function
`kaito_runtime_recipes()` that takes nothing and returns them. The module is imported by the runtime alone, so it may
import torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_RECIPE", "RECIPE_GROUP", "RECIPE_HOOK", "Recipe"]

RECIPE_GROUP = "kaito_runtime"
RECIPE_HOOK = "kaito_runtime_recipes"


def _leave_alone(model: nn.Module) -> None:
    """Prepares what transformers loads as it is: nothing to do."""


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
    """

    name: str
    architectures: tuple[str, ...] = ()
    prepare: Callable[[nn.Module], None] = field(default=_leave_alone)
    lora_exclude: tuple[str, ...] = ("lm_head",)


DEFAULT_RECIPE = Recipe(name="default")
