"""Runtime half of the Llama package. transformers' Llama already goes through the attention interface, so nothing
is changed: the recipe only says which architecture it is for.
"""

from collections.abc import Sequence

from kaito_runtime import hookimpl
from kaito_runtime.model.recipe import Recipe

__all__ = ["kaito_runtime_recipes"]


@hookimpl
def kaito_runtime_recipes() -> Sequence[Recipe]:
    """Returns the recipe of every model with the Llama architecture."""
    return (Recipe(name="llama", architectures=("LlamaForCausalLM",)),)
