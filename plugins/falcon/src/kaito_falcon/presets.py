"""The Falcon presets, as data. `recipe` has the part for the runtime."""

from typing import Any

from kaito_core.api import ModelPreset, Weights

__all__ = ["PRESETS"]

_CARD = "model card: Apache-2.0, 2048 tokens"
_KAITO = "KAITO v0.3.1, preset registry"
# KAITO pins older commits, which have only pickles as far as public listings show. The runtime loads safetensors.
_PIN = "commit whose safetensors public model cards describe; not checked against the hub"
_MEMORY = "estimate: one 10 GB shard in main memory while loading, and 6 GiB for Python and the GPU driver, per GPU"

_FALCON_7B: dict[str, Any] = {
    "gpus": 1,
    "gpu_memory_gib": 14,
    "memory_gib": 16,
    "disk_gib": 50,
    "heads": 71,
    "kv_bytes_per_token": 8192,
    "sources": {
        "heads": "config.json: 71 query heads with one key-value head",
        "weights.revision": _PIN,
        "weights.size_gib": "14,434,402,976 bytes of safetensors: 7,217,189,760 parameters with the output head",
        "gpus": _KAITO,
        "gpu_memory_gib": f"{_KAITO}; a full context's keys and values add 16 MiB",
        "memory_gib": _MEMORY,
        "disk_gib": _KAITO,
        "context_length": _CARD,
        "kv_bytes_per_token": "config.json: 2 * 1 key-value head (multi_query) * 64 * 32 layers * 2 bytes",
        "startup_seconds": f"{_KAITO}: 30 minutes",
    },
}

_FALCON_40B: dict[str, Any] = {
    "gpus": 2,
    "gpu_memory_gib": 90,
    "memory_gib": 32,
    "disk_gib": 157,
    "heads": 8,
    "kv_bytes_per_token": 122880,
    "sources": {
        "heads": "config.json: 8 key-value heads",
        "weights.revision": _PIN,
        "weights.size_gib": "83,671,996,368 bytes of safetensors: 41,835,970,560 parameters with the output head",
        "gpus": _KAITO,
        "gpu_memory_gib": _KAITO,
        "memory_gib": _MEMORY,
        "disk_gib": (
            "weights and 80 GiB for everything else, as KAITO v0.12.0 computes it; v0.3.1 has '400' without a unit, "
            "which Kubernetes reads as 400 bytes"
        ),
        "context_length": _CARD,
        "kv_bytes_per_token": "config.json: 2 * 8 key-value heads * 64 * 60 layers * 2 bytes",
        "startup_seconds": f"{_KAITO}: 30 minutes",
    },
}

_UNPINNED = {
    "weights.revision": "not pinned: no commit with safetensors could be confirmed",
    "weights.size_gib": "that of falcon-40b, which has the same architecture",
}


def _preset(name: str, revision: str, size_gib: float, numbers: dict[str, Any]) -> ModelPreset:
    return ModelPreset(
        name=name,
        family="falcon",
        architecture="FalconForCausalLM",
        recipe="falcon",
        weights=Weights(repository=f"tiiuae/{name}", revision=revision, size_gib=size_gib),
        dtype="bfloat16",
        context_length=2048,
        startup_seconds=1800,
        license="Apache-2.0",
        **numbers,
    )


PRESETS = (
    _preset("falcon-7b", "ec89142b67d748a1865ea4451372db8313ada0d8", 13.44, _FALCON_7B),
    _preset("falcon-7b-instruct", "8782b5c5d8c9290412416618f36a133653e85285", 13.44, _FALCON_7B),
    _preset("falcon-40b", "05ab2ee8d6b593bdbab17d728de5c028a7a94d83", 77.93, _FALCON_40B),
    _preset("falcon-40b-instruct", "main", 77.93, {**_FALCON_40B, "sources": _FALCON_40B["sources"] | _UNPINNED}),
)
