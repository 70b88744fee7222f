"""What a PEFT `adapter_config.json` means: which modules, at which rank and scaling, and whether that is all it means.

The reader of the folder is `kaito_runtime.adapters`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import nn

from kaito_runtime.errors import AdapterLoadError

__all__ = ["CONFIG_FILE", "FORBIDDEN", "Refuse", "parse_config", "rank_and_scaling", "targeted"]

CONFIG_FILE = "adapter_config.json"
Refuse = Callable[[str], AdapterLoadError]

# What a key must say for y = W x + s * scaling * B (A x) to be the whole truth. A key in neither table must be unset:
# what tomorrow's PEFT adds may change the formula.
# fmt: off
INERT = frozenset({
    "task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "runtime_config", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout",
    "fan_in_fan_out", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "megatron_config", "megatron_core", "qalora_group_size", "ensure_weight_tying", "_custom_modules",
})
# fmt: on
FORBIDDEN: Mapping[str, str] = {
    "use_dora": "DoRA rescales the base weight by a learnt magnitude, which is no sum of strengths",
    "modules_to_save": "whole modules were trained and cannot be weighted by a strength",
    "lora_bias": "a bias on lora_B is not supported",
    "trainable_token_indices": "trained token embeddings cannot be weighted by a strength",
    "target_parameters": "LoRA on bare parameters is not supported, only on linear layers",
    "layer_replication": "it changes the layers of the base model",
    "alora_invocation_tokens": "an activated LoRA (aLoRA) applies to a part of the prompt only",
    "use_qalora": "QA-LoRA pools the input by groups",
    "arrow_config": "Arrow routes between adapters inside the layer",
}
# These leave the base weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) train against a changed base.
HARMLESS_INITS = ("gaussian", "eva", "orthogonal")


def parse_config(content: bytes, refuse: Refuse) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise refuse(f"{CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise refuse(f"{CONFIG_FILE} must be a JSON object, got {type(config).__name__}")
    if config.get("peft_type") != "LORA":
        raise refuse(f"peft_type must be 'LORA', got {config.get('peft_type')!r}")
    if config.get("bias", "none") != "none":
        raise refuse(f"bias must be 'none', got {config['bias']!r}: trained biases cannot be weighted by a strength")
    for key, value in config.items():
        if key in INERT or key == "bias" or not value:
            continue
        why = FORBIDDEN.get(key, "it is not known here, so the result might not be exact")
        raise refuse(f"{key} is set to {value!r}: {why}")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in HARMLESS_INITS:
        raise refuse(
            f"init_lora_weights is {init!r}, which trains against changed base weights; "
            "convert the adapter to a plain LoRA first (PEFT: path_initial_model_for_weight_conversion)"
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise refuse(f"{key} must map module patterns to numbers, got {config[key]!r}")
    return config


def targeted(config: Mapping[str, Any], model: nn.Module, linears: Iterable[str], refuse: Refuse) -> set[str]:
    # PEFT's own matcher, so that the rules for suffixes, regular expressions and layer indices are PEFT's.
    from peft.tuners.tuners_utils import check_target_module_exists

    target = config["target_modules"]
    if isinstance(target, str) and target.lower() == "all-linear":
        output = getattr(model, "get_output_embeddings", lambda: None)()
        candidates = {path for path, module in model.named_modules() if module is not output}
        target = sorted(candidates & set(linears))
    rules = SimpleNamespace(
        target_modules=target,
        target_parameters=None,
        modules_to_save=None,
        exclude_modules=config.get("exclude_modules"),
        layers_to_transform=config.get("layers_to_transform"),
        layers_pattern=config.get("layers_pattern"),
    )
    try:
        # A named container (an attention block, say) is none of PEFT's targets either: it refuses what is no layer.
        return {path for path in linears if check_target_module_exists(rules, path)}
    except (re.error, TypeError) as error:
        raise refuse(f"target_modules {target!r} cannot be read: {error}") from error


def rank_and_scaling(config: Mapping[str, Any], module: str, refuse: Refuse) -> tuple[int, float]:
    """Rank and scaling (alpha / rank, or alpha / sqrt(rank) for rsLoRA) that the configuration gives to `module`."""
    rank = _pattern(config, "rank_pattern", "r", 8, module, refuse)
    alpha = _pattern(config, "alpha_pattern", "lora_alpha", 8, module, refuse)
    if not isinstance(rank, int) or rank < 1:
        raise refuse(f"the rank of '{module}' must be an integer of 1 or more, got {rank!r}")
    return rank, float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _pattern(config: Mapping[str, Any], key: str, fallback: str, default: int, module: str, refuse: Refuse) -> Any:
    """The value that holds for `module`: the first pattern that matches its end, else the general one."""
    from peft.utils.other import get_pattern_key

    pattern = config.get(key) or {}
    try:
        value = pattern.get(get_pattern_key(pattern, module), config.get(fallback, default))
    except re.error as error:
        raise refuse(f"{key} {sorted(pattern)} is not a regular expression: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse(f"{fallback} of '{module}' must be a finite number, got {value!r}")
    return value
