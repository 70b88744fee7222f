"""Runtime half of the Llama package.

transformers' Llama already uses the attention interface, so the recipe names the architecture and changes nothing.
"""

from collections.abc import Sequence

from kaito_runtime import hookimpl
from kaito_runtime.model.recipe import Recipe

__all__ = ["kaito_runtime_recipes"]


@hookimpl
def kaito_runtime_recipes() -> Sequence[Recipe]:
    """Returns the recipe for models of the Llama architecture."""
    return (Recipe(name="llama", architectures=("LlamaForCausalLM",)),)
