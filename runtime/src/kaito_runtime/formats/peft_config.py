"""What the installed PEFT and the model at hand add to the meaning of an `adapter_config.json`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from torch import nn

from kaito_core.api.peft.config import Refuse, names_targeted
from kaito_runtime.formats.wrapped import PLAIN, Names
from kaito_runtime.lora.targets import output_head

__all__ = ["is_pefts_default", "targeted"]


def is_pefts_default(key: str, value: object) -> bool:
    """Returns whether a value is the installed PEFT's default for a key.

    PEFT gives the default to configurations that were written before the key existed, so the default has no effect.
    """
    from peft import LoraConfig

    field = next((field for field in fields(LoraConfig) if field.name == key), None)
    if field is None:
        return False
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return type(value) is type(default) and value == default


def targeted(
    config: Mapping[str, Any],
    model: nn.Module,
    candidates: Iterable[str],
    linears: Collection[str],
    others: Iterable[str],
    refuse: Refuse,
    names: Names = PLAIN,
) -> set[str]:
    """Returns the layers that the configuration targets.

    Args:
        config: From `parse_config`, with target_modules.
        candidates: Names of the layers that can be adapted.
        linears: Those that "all-linear" means, and the output head.
        others: Paths of the model's other modules, none of which may be targeted.
        names: How the adapter names modules.

    Raises:
        AdapterLoadError: A pattern is broken, or a module that cannot be adapted is targeted.
    """
    head = output_head(model)
    linears = set(linears) - {path for path, module in model.named_modules() if module is head}
    spelled = set(map(names.there, linears))

    def meant(paths: Iterable[str]) -> set[str]:
        return set(map(names.here, names_targeted(config, map(names.there, paths), spelled, refuse)))

    if stray := sorted(meant(others)):
        what = type(model.get_submodule(stray[0])).__name__
        raise refuse(
            f"target_modules includes '{stray[0]}', a module of type {what}; only linear layers can be adapted, "
            "and the input embedding"
        )
    return meant(candidates)
