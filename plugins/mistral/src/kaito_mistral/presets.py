"""The Mistral presets, as data: Mistral 7B v0.3, base and instruct."""

from kaito_core.api import ModelPreset, Weights

__all__ = ["PRESETS"]

_REGISTRY = "KAITO v0.3.1, preset registry"
_CATALOG = "KAITO v0.12.0, model catalogue"
_SOURCES = {
    "weights.revision": "KAITO, presets/workspace/models/supported_models.yaml",
    "weights.size_gib": _CATALOG,
    "gpus": _REGISTRY,
    "gpu_memory_gib": _REGISTRY,
    "memory_gib": "estimate: one 10 GB shard in main memory while loading, and 6 GiB for Python and the GPU driver",
    "disk_gib": _CATALOG,
    "context_length": _CATALOG,
    "heads": _CATALOG,
    "kv_bytes_per_token": "KAITO v0.12.0, model catalogue: 2 * key-value heads * head width * layers * 2 bytes",
    "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
}


def _preset(name: str, repository: str, revision: str, *, gpu_memory_gib: float) -> ModelPreset:
    return ModelPreset(
        name=name,
        family="mistral",
        architecture="MistralForCausalLM",
        weights=Weights(repository=repository, revision=revision, size_gib=13.5),
        gpus=1,
        gpu_memory_gib=gpu_memory_gib,
        memory_gib=16,
        disk_gib=93,
        context_length=32768,
        heads=8,
        kv_bytes_per_token=131072,
        startup_seconds=1800,
        license="Apache-2.0",
        sources=_SOURCES,
    )


PRESETS = (
    _preset(
        "mistral-7b",
        "mistralai/Mistral-7B-v0.3",
        "d8cadc02ac76bd617a919d50b092e59d2d110aff",
        gpu_memory_gib=14,
    ),
    _preset(
        "mistral-7b-instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db",
        gpu_memory_gib=16,
    ),
)
