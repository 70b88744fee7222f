"""A preset made from a model's config.json, for models without a preset of a plugin. Pure: no file is read here.

Where the configuration does not say enough, the model is refused with the next step; nothing is guessed.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from kaito_core.api.messages import shown
from kaito_core.api.preset.model import PRESET_NAME, ModelPreset, Weights
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = ["GENERIC_NAME", "generic_id", "generic_preset", "kv_bytes_per_token", "parameter_count"]

#: "org/model", or "org/model@revision".
GENERIC_NAME = re.compile(r"(?P<path>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?", re.ASCII)

_FIELD = "inference.preset.name"
_GIB = 1 << 30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Decoders of attention and a gated MLP alone, whose parameters can be counted.
_GATED = frozenset(f"{name}ForCausalLM" for name in ("Granite", "Llama", "Mistral", "Phi3", "Qwen2", "Qwen3"))
_FALCON = "FalconForCausalLM"
_ATTENTION = frozenset({"full_attention", "sliding_attention"})
_WRITE_ONE = "write a preset for it instead (docs/reference/presets-yaml.md)"

# KAITO v0.12.0's estimate: 2 % on top of the weights, 2.3 GiB a GPU for activations and buffers, and a first cache.
_WEIGHTS_FACTOR = 1.02
_PER_GPU_GIB = 2.3
_WORKING_TOKENS = 2048
_LARGE_GPU_GIB = 80.0
_SHARD_GIB, _HOST_GIB = 9.3, 6.0
_DISK_BESIDE_GIB = 80.0


def generic_id(name: str) -> str:
    """Returns the model id of "org/model", which is a DNS label: "org--model", as the hub's cache names folders.

    A hash is appended where two models could have the same label.
    """
    path = name.partition("@")[0].lower()
    label = re.sub(r"[^-.a-z0-9]", "-", path.replace("/", "--")).strip("-.")
    if label == path.replace("/", "--") and PRESET_NAME.fullmatch(label):
        return label
    return f"{label[:54].rstrip('-.')}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def kv_bytes_per_token(config: Mapping[str, Any]) -> int:
    """Returns the size of one token's keys and values over all layers, in bytes at 16 bits a value.

    It is 2 * layers * key-value heads * head size * 2 bytes.

    Args:
        config: A model's config.json.

    Raises:
        InvalidWorkspaceError: The attention has a cache of another kind, or a number is missing.
    """
    if _number(config, "kv_lora_rank"):
        raise _refusal("has multi-head latent attention (kv_lora_rank), for whose cache there is no estimate")
    return 4 * _layers(config) * _kv_heads(config) * _head_size(config)


def parameter_count(config: Mapping[str, Any]) -> int | None:
    """Returns the number of parameters without norms and biases, or None for an unknown architecture."""
    architecture = _architecture(config)
    if architecture not in _GATED and architecture != _FALCON:
        return None
    hidden = _needed(config, "hidden_size")
    queries = _heads(config) * _head_size(config)
    keys = _kv_heads(config) * _head_size(config)
    if architecture == _FALCON:
        mlp = 2 * hidden * (_number(config, "ffn_hidden_size") or 4 * hidden)
    else:
        mlp = 3 * hidden * _needed(config, "intermediate_size")
    # Falcon ties its head to the embeddings, and its files hold both.
    tied = bool(config.get("tie_word_embeddings")) and architecture != _FALCON
    embeddings = _needed(config, "vocab_size") * hidden * (1 if tied else 2)
    return embeddings + _layers(config) * (2 * hidden * (queries + keys) + mlp)


def generic_preset(name: str, config: Mapping[str, Any], weights_bytes: int | None = None) -> ModelPreset:
    """Returns the preset of a model from its configuration.

    Args:
        name: "org/model" or "org/model@revision".
        config: Its config.json.
        weights_bytes: Size of its files, if known; otherwise it is computed from the configuration.

    Raises:
        InvalidWorkspaceError: The configuration is not enough for a preset; the message has the reason and the next
            step.
    """
    match = GENERIC_NAME.fullmatch(name)
    if match is None:
        raise _refusal(f"must be ORG/MODEL or ORG/MODEL@REVISION, got {shown(name)}", hint="")
    architecture = _architecture(config)
    if config.get("quantization_config"):
        raise _refusal("is quantised (quantization_config): memory and kernels depend on the method")
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list) and (strange := sorted({*map(str, layer_types)} - _ATTENTION)):
        raise _refusal(f"has layers other than attention ({', '.join(strange)})")
    dtype = config.get("dtype", config.get("torch_dtype", "float32"))
    if dtype not in _BYTES:
        raise _refusal(f"has the dtype {shown(dtype)}, not one of {', '.join(_BYTES)}")
    counted = parameter_count(config) if weights_bytes is None else None
    size = weights_bytes if counted is None else counted * _BYTES[dtype]
    if not size:
        raise _refusal(
            f"has the architecture {architecture}, whose size is not known from config.json",
            "put its model.safetensors.index.json beside it",
        )
    return _preset(match, config, size / _GIB, dtype, "config.json: parameters" if counted else "size of the files")


def _preset(
    match: re.Match[str], config: Mapping[str, Any], size_gib: float, dtype: str, size_source: str
) -> ModelPreset:
    kv_bytes = kv_bytes_per_token(config)
    cache_gib = kv_bytes * _WORKING_TOKENS / _GIB
    gpus = 1
    while (memory_gib := size_gib * _WEIGHTS_FACTOR + _PER_GPU_GIB * gpus + cache_gib) > gpus * _LARGE_GPU_GIB:
        gpus *= 2
    revision = match["revision"] or "main"
    return ModelPreset(
        name=generic_id(match["path"]),
        family=str(config.get("model_type") or "unknown"),
        architecture=_architecture(config),
        weights=Weights(repository=match["path"], revision=revision, size_gib=_up(size_gib, 1000)),
        dtype=cast(Literal["bfloat16", "float16", "float32"], dtype),
        gpus=gpus,
        gpu_memory_gib=_up(memory_gib),
        memory_gib=_up(min(size_gib, _SHARD_GIB) + _HOST_GIB * gpus),
        disk_gib=math.ceil(size_gib + _DISK_BESIDE_GIB),
        context_length=_context(config),
        heads=_kv_heads(config) if _kv_heads(config) > 1 else _heads(config),
        kv_bytes_per_token=kv_bytes,
        startup_seconds=max(1800, 900 + math.ceil(18 * size_gib)),
        license="unknown",
        sources={
            "weights.revision": "inference.preset.name" if match["revision"] else "not pinned: the branch main",
            "weights.size_gib": size_source,
            "gpus": "smallest power of two of 80 GiB GPUs that holds gpu_memory_gib",
            "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens, the estimate of KAITO v0.12.0",
            "memory_gib": "estimate: one 10 GB shard while loading, and 6 GiB a GPU for Python and the driver",
            "disk_gib": "weights and 80 GiB for everything else, the estimate of KAITO v0.12.0",
            "context_length": "config.json",
            "heads": "config.json: key-value heads, or query heads with one key-value head",
            "kv_bytes_per_token": "config.json: 2 * layers * key-value heads * head size * 2 bytes",
            "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
            "license": "config.json does not say: see the model's page",
        },
    )


def _up(gib: float, steps: int = 10) -> float:
    return math.ceil(gib * steps) / steps  # up, so that nothing becomes 0


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise _refusal(f"has a config.json whose architectures must be a list with one name, got {shown(named)}")
    if not named[0].endswith("ForCausalLM"):
        raise _refusal(f"has the architecture {named[0]}, which is not a language model of text alone (ForCausalLM)")
    return named[0]


def _layers(config: Mapping[str, Any]) -> int:
    return _needed(config, "num_hidden_layers", "n_layer")


def _heads(config: Mapping[str, Any]) -> int:
    return _needed(config, "num_attention_heads", "n_head")


def _head_size(config: Mapping[str, Any]) -> int:
    return _number(config, "head_dim") or _needed(config, "hidden_size") // _heads(config)


def _kv_heads(config: Mapping[str, Any]) -> int:
    # Falcon says it in two flags; what transformers assumes where they are missing is multi-query.
    if config.get("model_type") in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if config.get("new_decoder_architecture"):
            return _number(config, "num_kv_heads", "n_head_kv") or _heads(config)
        return 1 if config.get("multi_query", True) else _heads(config)
    return _number(config, "num_key_value_heads") or _heads(config)


def _context(config: Mapping[str, Any]) -> int:
    falcon = 2048 if config.get("model_type") == "falcon" else 0  # transformers' default
    return _number(config, "max_position_embeddings", "n_positions") or falcon or _needed(config, "seq_length")


def _number(config: Mapping[str, Any], *names: str) -> int:
    """Returns the first of the fields that is there, or 0."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise _refusal(f"has a config.json whose {name} must be a positive whole number, got {shown(value)}")
        return value
    return 0


def _needed(config: Mapping[str, Any], *names: str) -> int:
    if number := _number(config, *names):
        return number
    raise _refusal(f"has a config.json without {' or '.join(names)}")


def _refusal(message: str, hint: str = _WRITE_ONE) -> InvalidWorkspaceError:
    return InvalidWorkspaceError([FieldError(_FIELD, f"{message}; {hint}" if hint else message)])
