"""Recipe: what a model package says to the runtime about its models, and the hook that returns it.

The runtime half of a package is a module that its entry point in the group `kaito_runtime` names. It is imported by the
runtime alone, so it may import torch and transformers. Packages are found and loaded in `recipes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pluggy import HookspecMarker

from kaito_runtime.model.tool_formats import ToolFormat

if TYPE_CHECKING:
    from torch import nn

    from kaito_runtime.lora.sharded import Shard

__all__ = ["API_VERSION", "DEFAULT_RECIPE", "PROJECT", "Recipe", "kaito_runtime_recipes"]

PROJECT = "kaito_runtime"  #: pluggy project, and entry-point group of the runtime half of packages
#: Version of the hooks of the runtime. A package may ask for one with an entry point of the same name in the group
#: `kaito_runtime.api` whose value is "vN"; without one it is for the first.
API_VERSION = 1

hookspec = HookspecMarker(PROJECT)


@hookspec
def kaito_runtime_recipes() -> Iterable[Recipe]:  # type: ignore[empty-body]
    """Return the recipes that this package brings. Called once, before the model is loaded.

    Names are unique across packages: one that repeats a name is left out whole, as is one whose hook raises.

    Example:
        @kaito_runtime.hookimpl
        def kaito_runtime_recipes():
            return [Recipe("tiny", architectures=("TinyForCausalLM",), prepare=prepare)]
    """


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
        tool_formats: How its models write tool calls; tried before the built-in formats, by the model's chat template.
    """

    name: str
    architectures: tuple[str, ...] = ()
    prepare: Callable[[nn.Module], None] = field(default=_leave_alone)
    lora_exclude: tuple[str, ...] = ()
    tp_plan: Callable[[Any], Mapping[str, str]] = field(default=_class_plan)
    cut: Callable[[nn.Module, int, int], Mapping[str, Shard]] = field(default=_cut_nothing)
    tool_formats: tuple[ToolFormat, ...] = ()


DEFAULT_RECIPE = Recipe(name="default")
