"""The Phi presets, as data: Phi 2, and Phi 3, 3.5 and 4, which are all of the Phi-3 architecture."""

from typing import Any

from kaito_core.api import ModelPreset, Weights

__all__ = ["PRESETS"]

_CATALOG = "KAITO v0.12.0, model catalogue"
_SOURCES = {
    "weights.revision": "KAITO, presets/workspace/models/supported_models.yaml",
    "weights.size_gib": _CATALOG,
    "gpus": "one GPU; the operator uses more if they have less than gpu_memory_gib",
    "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens, as KAITO v0.12.0 computes it",
    "memory_gib": "estimate: one 10 GB shard in main memory while loading, and 6 GiB for Python and the GPU driver",
    "disk_gib": _CATALOG,
    "context_length": _CATALOG,
    "heads": _CATALOG,
    "kv_bytes_per_token": "KAITO v0.12.0, model catalogue: 2 * key-value heads * head width * layers * 2 bytes",
    "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
}
#: Some of these models have two sets of rotary factors. transformers uses the long ones for a whole step as soon as one
#: of its sequences is longer than this. That would change the answers to other requests, so none may be longer.
_SHORT_CONTEXT = 4096
_LONG_SOURCES = _SOURCES | {
    "context_length": (
        "original_max_position_embeddings in config.json; the model supports 131072, but longer sequences change the "
        "rotary factors of other requests in the same batch"
    )
}

# Sizes of several models.
_MINI: dict[str, Any] = {
    "size_gib": 7.12,
    "gpu_memory_gib": 11,
    "disk_gib": 87,
    "heads": 32,
    "kv_bytes_per_token": 393216,
}
_MEDIUM: dict[str, Any] = {
    "size_gib": 26.0,
    "gpu_memory_gib": 30,
    "disk_gib": 106,
    "heads": 10,
    "kv_bytes_per_token": 204800,
}


def _preset(
    repository: str,
    revision: str,
    *,
    size_gib: float,
    long_factors: bool = False,
    context_length: int = 4096,
    **numbers: Any,
) -> ModelPreset:
    return ModelPreset(
        name=repository.partition("/")[2].lower(),
        family="phi",
        architecture="Phi3ForCausalLM",
        weights=Weights(repository=repository, revision=revision, size_gib=size_gib),
        gpus=1,
        memory_gib=16,
        context_length=_SHORT_CONTEXT if long_factors else context_length,
        license="MIT",
        sources=_LONG_SOURCES if long_factors else _SOURCES,
        **numbers,
    )


_KAITO = "KAITO v0.3.1, preset registry"

PRESETS = (
    ModelPreset(
        name="phi-2",
        family="phi",
        architecture="PhiForCausalLM",
        weights=Weights(
            repository="microsoft/phi-2", revision="b10c3eba545ad279e7208ee3a5d644566f001670", size_gib=5.18
        ),
        dtype="float16",
        gpus=1,
        gpu_memory_gib=12,
        memory_gib=16,
        disk_gib=50,
        context_length=2048,
        heads=32,
        kv_bytes_per_token=327680,
        license="MIT",
        sources={
            "weights.revision": "commit named by public projects that pin this repository; not checked against the hub",
            "weights.size_gib": "config.json: the parameters, 2 bytes each",
            "gpus": _KAITO,
            "gpu_memory_gib": _KAITO,
            "memory_gib": _SOURCES["memory_gib"],
            "disk_gib": _KAITO,
            "context_length": "config.json: max_position_embeddings",
            "heads": "config.json",
            "kv_bytes_per_token": "config.json: 2 * 32 key-value heads * 80 * 32 layers * 2 bytes",
            "startup_seconds": f"{_KAITO}: 30 minutes",
        },
    ),
    _preset("microsoft/Phi-3-mini-4k-instruct", "0a67737cc96d2554230f90338b163bc6380a2a85", **_MINI),
    _preset(
        "microsoft/Phi-3-mini-128k-instruct", "072cb7562cb8c4adf682a8e186aaafa49469eb5d", long_factors=True, **_MINI
    ),
    _preset("microsoft/Phi-3-medium-4k-instruct", "b64223aaea6fbf273c0c8cd0801d5e732dce8897", **_MEDIUM),
    _preset(
        "microsoft/Phi-3-medium-128k-instruct", "fa7d2aa4f5ea69b2e36b20d050cdae79c9bfbb3f", long_factors=True, **_MEDIUM
    ),
    _preset("microsoft/Phi-3.5-mini-instruct", "3145e03a9fd4cdd7cd953c34d9bbf7ad606122ca", long_factors=True, **_MINI),
    _preset(
        "microsoft/phi-4",
        "187ef0342fff0eb3333be9f00389385e95ef0b61",
        size_gib=27.31,
        gpu_memory_gib=31,
        disk_gib=107,
        context_length=16384,
        heads=10,
        kv_bytes_per_token=204800,
    ),
    _preset(
        "microsoft/Phi-4-mini-instruct",
        "c0fb9e74abda11b496b7907a9c6c9009a7a0488f",
        long_factors=True,
        size_gib=7.15,
        gpu_memory_gib=10,
        disk_gib=87,
        heads=8,
        kv_bytes_per_token=131072,
    ),
)
