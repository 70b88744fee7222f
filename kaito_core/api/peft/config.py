"""The meaning of a PEFT `adapter_config.json`: which modules it adapts, and at which rank and scaling.

A configuration that means anything more is refused. The keys are in `keys`. Names are matched as PEFT matches them.
Source: peft.tuners.tuners_utils.check_target_module_exists, peft.utils.other.get_pattern_key (0.21).
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from kaito_core.api.peft.json_objects import without_repeats
from kaito_core.api.peft.keys import EXACT, HARMLESS, HARMLESS_INITS, HEADS, REFUSED, TASKS
from kaito_core.api.peft.patterns import is_bounded

__all__ = [
    "CONFIG_FILE",
    "FROM_MLX",
    "LARGEST",
    "MLX_FILE",
    "Refuse",
    "names_targeted",
    "parse_config",
    "rank_and_scaling",
    "short",
]

CONFIG_FILE = "adapter_config.json"
MLX_FILE = "adapters.safetensors"  #: What MLX saves instead of PEFT's file.
FROM_MLX = (
    "save it as a PEFT LoRA: lora_A is lora_a transposed, lora_B is lora_b transposed, lora_alpha is scale times rank"
)
# Trained weights stay within fp16's range; sums over larger values could become infinite in a shared batch.
LARGEST = 65504.0
Refuse = Callable[[str], Exception]
"""Makes the refusal of one adapter from its reason."""


def parse_config(
    content: bytes, refuse: Refuse, *, has_no_effect: Callable[[str, object], bool] = lambda key, value: False
) -> dict[str, Any]:
    """Returns the configuration in the bytes of an `adapter_config.json`.

    Args:
        content: The file.
        refuse: Makes what is raised where the file is damaged, or asks for what could not be applied exactly.
        has_no_effect: Tells of keys that are in no table, and their values, that they have no effect.
    """
    try:
        config = json.loads(content, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise refuse(f"{CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise refuse(f"{CONFIG_FILE} must be a JSON object, got {type(config).__name__}")
    if "peft_type" not in config and ("lora_parameters" in config or "fine_tune_type" in config):
        raise refuse(f"{CONFIG_FILE} is what MLX saves; {FROM_MLX}")
    if config.get("peft_type") != "LORA":
        raise refuse(f"peft_type must be 'LORA', got {short(config.get('peft_type'))}")
    if config.get("bias", "none") != "none":
        raise refuse(f"bias must be 'none', got {short(config['bias'])}: {REFUSED['bias']}")
    for key, value in config.items():
        if key in EXACT or key in HARMLESS or key == "bias":
            continue
        if key in REFUSED and value:
            raise refuse(f"{key} is set to {short(value)}: {REFUSED[key]}; train the adapter without it")
        if key not in REFUSED and not (_is_off(value) or has_no_effect(key, value)):
            raise refuse(f"{key} is set to {short(value)}: the key is unknown here, so the result might not be exact")
    _check_task(config.get("task_type"), refuse)
    _check_init(config.get("init_lora_weights", True), refuse)
    _check_types(config, refuse)
    for key in ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        # Lists of modules are compared as names, everything else is matched.
        value = () if key.endswith("_modules") and isinstance(config.get(key), list) else config.get(key) or ()
        for pattern in (value,) if isinstance(value, str) else value:
            if not is_bounded(pattern):
                raise refuse(f"{key} {short(pattern)} could take forever to match; avoid nested repetitions")
    return config


def _is_off(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _check_task(task: object, refuse: Refuse) -> None:
    if task in HEADS:
        raise refuse(
            f"task_type is {task!r}, which puts another head on the model; train the adapter with task_type 'CAUSAL_LM'"
        )
    if task is not None and task not in TASKS:
        raise refuse(f"task_type must be one of {', '.join(TASKS)} or null, got {short(task)}")


def _check_init(init: object, refuse: Refuse) -> None:
    if isinstance(init, bool) or (isinstance(init, str) and init.lower() in HARMLESS_INITS):
        return
    if not isinstance(init, str):
        raise refuse(f"init_lora_weights must be true, false or a name, got {short(init)}")
    raise refuse(
        f"init_lora_weights is {short(init)}, which may train against changed base weights; "
        "convert the adapter to a plain LoRA first (PEFT: path_initial_model_for_weight_conversion)"
    )


def _check_types(config: Mapping[str, Any], refuse: Refuse) -> None:
    """Refuses values that PEFT or Python would accept and misread, such as the text "false"."""
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise refuse(f"{key} must map module patterns to numbers, got {short(config[key])}")
    if not isinstance(config.get("use_rslora", False), bool):
        raise refuse(f"use_rslora must be true or false, got {short(config['use_rslora'])}")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        if not (config.get(key) is None or isinstance(config[key], str) or _is_list_of(config[key], str)):
            raise refuse(f"{key} must be a pattern or a list of names, got {short(config[key])}")
    for key in ("target_parameters", "modules_to_save"):
        if not (config.get(key) is None or _is_list_of(config[key], str)):
            raise refuse(f"{key} must be a list of names, got {short(config[key])}")
    layers = config.get("layers_to_transform")
    if not (layers is None or type(layers) is int or _is_list_of(layers, int)):
        raise refuse(f"layers_to_transform must be a number or a list of numbers, got {short(layers)}")
    for key in ("layers_to_transform", "layers_pattern"):
        if isinstance(config.get("target_modules"), str) and config.get(key) is not None:
            target = short(config["target_modules"])
            raise refuse(f"{key} cannot be combined with a pattern in target_modules, {target}; drop one of them")
    if config.get("layers_pattern") and layers is None:
        raise refuse(f"layers_pattern is set to {short(config['layers_pattern'])}, but layers_to_transform is not set")


def names_targeted(
    config: Mapping[str, Any], names: Iterable[str], linears: Collection[str], refuse: Refuse
) -> set[str]:
    """Returns the names that the configuration's `target_modules` means.

    Args:
        config: From `parse_config`, with target_modules.
        names: Paths of modules.
        linears: What "all-linear" means.
        refuse: Makes what is raised where a pattern is broken.
    """
    target = config["target_modules"]
    if isinstance(target, str) and target.lower() == "all-linear":
        target = sorted(linears)
    try:
        return {name for name in names if _is_targeted(name, target, config)}
    except (re.error, OverflowError, RecursionError) as error:
        given = {key: config[key] for key in ("target_modules", "exclude_modules", "layers_pattern") if config.get(key)}
        says = ", ".join(f"{key} {short(value)}" for key, value in given.items())
        raise refuse(f"{says} cannot be read as a regular expression: {error}") from error


def _is_targeted(name: str, target: Any, config: Mapping[str, Any]) -> bool:
    excluded = config.get("exclude_modules") or ()
    if _matches(name, excluded):
        return False
    if isinstance(target, str):
        return re.fullmatch(target, name) is not None
    layers = config.get("layers_to_transform")
    if not _matches(name, target) or layers is None or layers == []:
        return _matches(name, target)
    patterns = config.get("layers_pattern") or r"[^.]*"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        # The first number: a mixture has the number of the expert behind that of the layer.
        start = "" if patterns == r"[^.]*" else "^|"
        if match := re.match(rf"(?:{start}.*?\.){pattern}\.(?P<index>\d+)\.", name):
            return int(match["index"]) in (layers if isinstance(layers, list) else [layers])
    return False


def _matches(name: str, target: Any) -> bool:
    """Returns whether a pattern matches a whole name, or one of a list of names its end."""
    if isinstance(target, str):
        return re.fullmatch(target, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in target)


def rank_and_scaling(config: Mapping[str, Any], module: str, refuse: Refuse) -> tuple[int, float]:
    """Returns the rank and the scaling (alpha / rank, or alpha / sqrt(rank) for rsLoRA) of `module`.

    Args:
        config: From `parse_config`.
        module: Its path.
        refuse: Makes what is raised where one of them is not a number, or out of range.
    """
    rank = _pattern(config, "rank_pattern", "r", 8, module, refuse)
    alpha = _pattern(config, "alpha_pattern", "lora_alpha", 8, module, refuse)
    if not isinstance(rank, int) or rank < 1:
        raise refuse(f"the rank of '{module}' must be an integer of 1 or more, got {rank!r}")
    scaling = float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)
    if abs(scaling) > LARGEST:
        raise refuse(f"lora_alpha of '{module}' gives a scaling of {scaling:g}; the largest accepted is {LARGEST:g}")
    return rank, scaling


def _pattern(config: Mapping[str, Any], key: str, fallback: str, default: int, module: str, refuse: Refuse) -> Any:
    """Returns the value for `module`: that of the first pattern that matches its end, else the general one."""
    patterns = config.get(key) or {}
    try:
        general = config.get(fallback, default)
        value = next((v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), general)
    except (re.error, OverflowError, RecursionError) as error:
        raise refuse(f"{key} {short(sorted(patterns))} is not a regular expression: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise refuse(f"{fallback} of '{module}' must be a finite number, got {short(value)}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def short(value: object) -> str:
    """Returns how a value is written, cut where it would fill the log."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
